"""What can go wrong in an agent: one leaf per thing a caller, or the keeper, would do differently.

Owns: the errors of `livery_agent`. Does not own: status codes (`livery.runtime.problems`), nor the texts that SPIRE
fixes for its Workload API (`doors.workload_api`).
"""

from __future__ import annotations

from livery.errors import Kind, LiveryError


class AgentError(LiveryError):
    """The root of everything this package raises."""

    code = "agent"
    kind = Kind.INTERNAL


class UnusableConfig(AgentError):
    """The configuration names something that is not there or not what it should be."""

    code = "agent_config"
    kind = Kind.INVALID


class StateUnreadable(AgentError):
    """The state on disk is not ours, or not whole: somebody must look before it is overwritten."""

    code = "agent_state"
    kind = Kind.PRECONDITION


class CaUnavailable(AgentError):
    """The CA did not answer, or said "not now": keep what we have and try again."""

    code = "ca_unavailable"
    kind = Kind.UNAVAILABLE


class CaOverloaded(CaUnavailable):
    """The CA said "too much at once": ask for less."""

    code = "ca_overloaded"


class CaRefused(AgentError):
    """The CA answered no, for a reason that is not the state of this node."""

    code = "ca_refused"
    kind = Kind.DENIED


class CaAnswerUnusable(AgentError):
    """The CA answered with what must not be used: a wrong ID, a chain that does not verify, a missing part."""

    code = "ca_answer"
    kind = Kind.UNAVAILABLE


class NotInForce(CaAnswerUnusable):
    """A certificate that is not valid by our own clock: one of the two clocks is wrong."""

    code = "clock_skew"


class NodeRefused(AgentError):
    """The CA no longer accepts this node as it stands; attesting anew may mend it."""

    code = "node_refused"
    kind = Kind.DENIED


class NodeExpired(NodeRefused):
    """The CA holds this node's certificate to be expired; by our clock it may not be."""

    code = "node_expired"


class NodeMustReattest(NodeRefused):
    """The CA will not renew this node's certificate; it wants the node to attest again."""

    code = "node_must_reattest"


class NodeBanned(NodeRefused):
    """The CA's administrators shut this node out; nothing the node does will mend it."""

    code = "node_banned"


class NodeLost(AgentError):
    """This node has no identity any more and cannot attest by itself: the process ends, and says what is needed."""

    code = "node_lost"
    kind = Kind.PRECONDITION


class NodeProofUnavailable(AgentError):
    """The evidence for node attestation (a token, a certificate, a key) could not be read or used."""

    code = "node_proof"
    kind = Kind.PRECONDITION


class WorkloadUnattested(AgentError):
    """Who is calling could not be established; nothing is known about what it may have."""

    code = "workload_unattested"
    kind = Kind.UNAVAILABLE


class WorkloadChanged(WorkloadUnattested):
    """The calling process ended, became another program or another user while we looked: it gets nothing."""

    code = "workload_changed"
