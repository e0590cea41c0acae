"""A local stand-in for an Auth0 tenant, for tests and for development.

It runs without an Auth0 account, and apps talk to it over real sockets. It signs in
anybody, so other machines must never reach it: it binds to 127.0.0.1 only.
"""

from .directory import Organization, User
from .faults import Fault
from .server import Seen
from .tenant import Tenant

__all__ = ["Fault", "Organization", "Seen", "Tenant", "User"]
