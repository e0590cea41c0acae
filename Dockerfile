FROM python:3.13-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /srv/app

# a layer of its own: it is made anew only when a version changes
COPY requirements.txt requirements-redis.txt requirements-server.txt ./
RUN pip install --no-cache-dir -r requirements.txt -r requirements-redis.txt -r requirements-server.txt

RUN useradd --system --uid 10001 app && install -d -o app /var/lib/app
# which sessions were ended is noted here, unless AUTH0_REDIS_URL is set: use a volume
ENV AUTH0_REVOCATIONS_PATH=/var/lib/app/revocations.sqlite3

COPY app.py auth.py languages.py logging.json ./
# in which stores is a link to the folder beside it
COPY auth0_flask/ auth0_flask/
COPY stores/ stores/
COPY templates/ templates/
COPY static/ static/
COPY translations/ translations/

USER app
EXPOSE 8000
# http.client, since urllib would ask a proxy that HTTP_PROXY names
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "from http.client import HTTPConnection as H; h = H('127.0.0.1', 8000, timeout=2); h.request('GET', '/healthz'); raise SystemExit(h.getresponse().status != 200)"]
CMD ["granian", "--interface", "wsgi", "--factory", "app:create_app", "--workers", "2", "--blocking-threads", "8", "--host", "0.0.0.0", "--port", "8000", "--workers-kill-timeout", "8", "--respawn-failed-workers", "--log-config", "logging.json"]
