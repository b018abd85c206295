# Exact tags, so that a build of tomorrow is the same as today's. A tag can still be moved: for production append the
# digest you tested, python:3.11.16-slim-bookworm@sha256:… (docker buildx imagetools inspect IMAGE:TAG prints it).
#
# The one package that comes as C source is built where a compiler is; the image has none.
FROM python:3.11.16-bookworm AS wheels
WORKDIR /wheels
COPY requirements-fast.lock ./
RUN pip wheel --no-cache-dir --require-hashes -r requirements-fast.lock

FROM python:3.11.16-slim-bookworm
LABEL org.opencontainers.image.title=WechatLaibao \
    org.opencontainers.image.description="The gateway that puts a Dify app in front of people" \
    org.opencontainers.image.version=0.1.0 \
    org.opencontainers.image.licenses=MIT
ENV PYTHONUNBUFFERED=1
WORKDIR /app

# Before the code: a change of code does not reinstall the packages.
COPY requirements.lock requirements-otel.lock ./
# Every file has a hash of the lock, or was built above from one that has.
RUN pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.lock -r requirements-otel.lock
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps --find-links /wheels gunicorn_h1c

# The product alone. Settings come from the environment, so no secret is in any layer.
COPY app.py gunicorn.conf.py ./
COPY bootstrap/ bootstrap/
COPY config/ config/
COPY server/ server/
COPY channels/ channels/
COPY services/ services/
COPY utils/ utils/
COPY tools/ tools/
COPY demo/__init__.py demo/ierror.py demo/WXBizJsonMsgCrypt.py demo/
# WeCom's side of a conversation, for `python -m tools.wecom`.
COPY demo/wecom/ demo/wecom/
COPY demo/mocks/__init__.py demo/mocks/http.py demo/mocks/
RUN python -m compileall -q .

# By number, so that Kubernetes can see it is not root. It owns no file of the image.
USER 10001:10001
EXPOSE 5000
# A Python for each check would cost more than the gateway when nobody asks.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${PORT:-5000} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r -t 4 _ status _ <&3 && [ \"$status\" = 200 ]"]
CMD ["gunicorn"]
