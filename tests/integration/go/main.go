// Command gopeer is an unmodified go-spiffe client: what it sees of livery's Workload API and of a service's mTLS is
// what any Go service sees. It prints one JSON object a line; an error goes to standard error with exit code 1.
//
//	gopeer x509                    the X.509 context: identities and trust domains
//	gopeer jwt AUDIENCE            a JWT-SVID, fetched and validated through the Workload API and by go-spiffe itself
//	gopeer watch COUNT             COUNT X.509 updates, each with its serial number
//	gopeer get URL SPIFFE-ID       one HTTP request over mTLS to the server with exactly that ID
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	switch {
	case len(arguments) == 1 && arguments[0] == "x509":
		return printX509(ctx)
	case len(arguments) == 2 && arguments[0] == "jwt":
		return printJWT(ctx, arguments[1])
	case len(arguments) == 2 && arguments[0] == "watch":
		count, err := strconv.Atoi(arguments[1])
		if err != nil {
			return err
		}
		return watch(ctx, count)
	case len(arguments) == 3 && arguments[0] == "get":
		return get(ctx, arguments[1], arguments[2])
	}
	return errors.New("usage: gopeer x509 | jwt AUDIENCE | watch COUNT | get URL SPIFFE-ID")
}

func say(fields map[string]any) error {
	return json.NewEncoder(os.Stdout).Encode(fields)
}

func printX509(ctx context.Context) error {
	x509Context, err := workloadapi.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	var ids, domains []string
	for _, svid := range x509Context.SVIDs {
		ids = append(ids, svid.ID.String())
	}
	for _, bundle := range x509Context.Bundles.Bundles() {
		domains = append(domains, bundle.TrustDomain().Name())
	}
	return say(map[string]any{"ids": ids, "trust_domains": domains})
}

func printJWT(ctx context.Context, audience string) error {
	svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	remote, err := workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), audience)
	if err != nil {
		return fmt.Errorf("validated by the agent: %w", err)
	}
	bundles, err := workloadapi.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	local, err := validateHere(svid.Marshal(), bundles, audience)
	if err != nil {
		return fmt.Errorf("validated by go-spiffe: %w", err)
	}
	return say(map[string]any{"id": svid.ID.String(), "remote": remote.ID.String(), "local": local.ID.String()})
}

func validateHere(token string, bundles *jwtbundle.Set, audience string) (*jwtsvid.SVID, error) {
	return jwtsvid.ParseAndValidate(token, bundles, []string{audience})
}

func watch(ctx context.Context, count int) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	for seen := 0; seen < count; seen++ {
		svid, err := source.GetX509SVID()
		if err != nil {
			return err
		}
		if err := say(map[string]any{"id": svid.ID.String(), "serial": svid.Certificates[0].SerialNumber.Text(16)}); err != nil {
			return err
		}
		if seen+1 == count {
			return nil
		}
		select {
		case <-source.Updated():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func get(ctx context.Context, url, expected string) error {
	id, err := spiffeid.FromString(expected)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig: tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(id)),
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	return say(map[string]any{"status": response.StatusCode, "body": string(body)})
}
