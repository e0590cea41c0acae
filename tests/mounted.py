"""The app below a path, as a bigger site mounts it."""

from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from app import create_app

application = DispatcherMiddleware(NotFound(), {"/sub": create_app()})
