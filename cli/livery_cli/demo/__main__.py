"""`python -m livery_cli.demo inventory|orders`: a demo service as a process of its own, started by `livery up`."""

from livery_cli.demo.command import demo

if __name__ == "__main__":
    raise SystemExit(demo(standalone_mode=False))
