"""Who is signed in, for views, templates and guards."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from werkzeug.local import LocalProxy

from .extension import installed

_NOBODY: Mapping[str, Any] = MappingProxyType({})


def _claims() -> Mapping[str, Any]:
    state = installed().client.read_session()
    return MappingProxyType((state or {}).get("user") or _NOBODY)


#: The claims of whoever is signed in: a read-only mapping, empty (so falsy) when
#: nobody is. The session is opened when it is first asked, once a request.
auth_user = cast(Mapping[str, Any], LocalProxy(_claims))
