"""The one writer: what is due is asked of the CA, and a new snapshot is put in place.

`keeper` has the order of all work, `pace` its pauses and the account of failures; `renewal` signs what the workloads'
entries want.
"""

from livery_agent.keeper.keeper import Keeper, KeeperParts, Terms

__all__ = ["Keeper", "KeeperParts", "Terms"]
