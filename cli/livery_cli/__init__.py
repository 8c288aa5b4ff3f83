"""The one `livery` command."""
