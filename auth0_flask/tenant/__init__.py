"""A stand-in for an Auth0 tenant on this machine's loopback interface.

For trying the app without an Auth0 account and for tests that run whole
logins over real sockets. It signs in anybody who asks, so it must never be
reachable from another machine; it binds to 127.0.0.1 and to nothing else.
"""

from .directory import Organization, User
from .faults import Fault
from .server import Seen
from .tenant import Tenant

__all__ = ["Fault", "Organization", "Seen", "Tenant", "User"]
