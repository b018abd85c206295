# The one package that comes as C source is built where a compiler is; the image has none.
FROM python:3.11 AS wheels
WORKDIR /wheels
COPY requirements-fast.txt constraints.txt ./
RUN pip wheel --no-cache-dir -r requirements-fast.txt

FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1
WORKDIR /app

# Before the code: a change of code does not install anew.
COPY requirements.txt requirements-fast.txt constraints.txt ./
COPY --from=wheels /wheels/ wheels/
RUN pip install --no-cache-dir --only-binary :all: --find-links wheels -r requirements.txt -r requirements-fast.txt

# What runs, and nothing else. Settings come from the environment, so no secret is in any layer.
COPY app.py gunicorn.conf.py ./
COPY config/ config/
COPY channels/ channels/
COPY services/ services/
COPY utils/ utils/
COPY tools/ tools/
COPY demo/__init__.py demo/ierror.py demo/WXBizJsonMsgCrypt.py demo/
RUN python -m compileall -q .

# By number, so that Kubernetes can see it is not root. It owns no file of the image.
USER 10001:10001
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '5000') + '/healthz', timeout=4)"]
CMD ["gunicorn"]
