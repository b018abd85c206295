"""The clients of docs/openai.md ask the gateway: OpenAI's own packages, LangChain and LiteLLM."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from tests.support.pictures import png
from tests.support.replicas import ROOT, Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer, require_binary

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(180)]

TEXT = (ROOT / "docs" / "openai.md").read_text("utf-8")
#: The folder that `make clients` fills.
CLIENTS = ROOT / ".clients"
#: A key like OpenAI's, because some clients look at its form.
KEY = "sk-obviously-fake-api-key"
QUESTION = "年假怎么申请？"

#: What OpenAI's package makes of the answer's other parts, and of errors.
DETAILS = """
from openai import APIError, BadRequestError, ConflictError, NotFoundError, OpenAI

client = OpenAI(max_retries=0)
ask = client.chat.completions.create
asked = lambda text: [{"role": "user", "content": text}]

print([model.id for model in client.models.list()])
reply = ask(model="default", messages=asked("年假怎么申请？ [[think]]"))
message = reply.choices[0].message
print(bool(message.reasoning_content), reply.usage.total_tokens > 0, reply.choices[0].finish_reason)
print(message.annotations[0].url_citation.title)
options = {"include_usage": True}
chunks = list(ask(model="default", messages=asked("年假怎么申请？"), stream=True, stream_options=options))
print(chunks[-1].usage.total_tokens > 0, chunks[-1].choices)

def failed(kind, **request):
    try:
        for _ in ask(**request):
            pass
    except kind as exc:
        print(type(exc).__name__, exc.code, exc.param)

failed(NotFoundError, model="none", messages=asked("x"))
failed(BadRequestError, model="default", messages=asked("x"), n=2)
key = {"Idempotency-Key": "k1"}
ask(model="default", messages=asked("甲？"), extra_headers=key)
failed(ConflictError, model="default", messages=asked("乙？"), extra_headers=key)
failed(APIError, model="default", messages=asked("年假怎么申请？ [[new-agent-differs]]"), stream=True)
"""
PRINTED = """\
['default']
True True stop
handbook.md
True []
NotFoundError model_not_found model
BadRequestError unsupported_value n
ConflictError idempotency_key_reuse Idempotency-Key
APIError answer_replaced None
"""


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    with MockDify(delay=0.05) as dify:
        yield dify


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    own = dify_settings(dify.base_url, API_KEYS=KEY, RATE_LIMIT_USER="off")
    with replicas(1, settings_for(redis_server.url(), **own), tmp_path_factory.mktemp("clients")) as (replica,):
        yield replica


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def printed(gateway: Replica, interpreter: Path | str, program: Path) -> str:
    """Run a program of a client and return what it prints."""
    own = {"OPENAI_BASE_URL": f"{gateway.url}/v1", "OPENAI_API_KEY": KEY, "PYTHONIOENCODING": "utf-8"}
    # LiteLLM otherwise fetches a list of prices when it is imported.
    own["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [interpreter, program], env={**env, **own}, cwd=program.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def python() -> str:
    """Return the interpreter that has the clients."""
    return require_binary(str(CLIENTS / "venv" / "bin" / "python"))


@pytest.mark.parametrize("number", [0, 2, 3], ids=["openai", "langchain", "litellm"])
def test_a_python_client_prints_the_answer(gateway: Replica, dify: MockDify, tmp_path: Path, number: int) -> None:
    """The snippet of the document, as it is."""
    program = tmp_path / "program.py"
    program.write_text(snippets("python")[number], "utf-8")

    assert printed(gateway, python(), program).strip() == dify.expected_answer(QUESTION).strip()


def test_openais_package_sends_a_picture(gateway: Replica, dify: MockDify, tmp_path: Path) -> None:
    """The snippet of the document, as it is: Dify sees the picture."""
    program = tmp_path / "program.py"
    program.write_text(snippets("python")[1], "utf-8")
    (tmp_path / "receipt.png").write_bytes(png())

    assert "我看到了" in printed(gateway, python(), program)
    assert dify.uploads[-1].content == png()


def test_the_node_client_prints_the_answer(gateway: Replica, dify: MockDify, tmp_path: Path) -> None:
    """The snippet of the document, as it is."""
    require_binary(str(CLIENTS / "venv" / "bin" / "python"))
    (tmp_path / "node_modules").symlink_to(CLIENTS / "node_modules")
    program = tmp_path / "program.mjs"
    program.write_text(snippets("js")[0], "utf-8")

    assert printed(gateway, require_binary("node"), program).strip() == dify.expected_answer(QUESTION).strip()


def test_openais_package_understands_the_answers_parts_and_errors(gateway: Replica, tmp_path: Path) -> None:
    """Thinking, tokens, sources and models; each error is the exception that programs expect."""
    program = tmp_path / "program.py"
    program.write_text(DETAILS, "utf-8")

    assert printed(gateway, python(), program) == PRINTED


def test_curl_prints_the_answer(gateway: Replica, dify: MockDify) -> None:
    """The snippet of the document, with this gateway's address and key."""
    snippet = snippets("sh")[0].replace("http://127.0.0.1:5000", gateway.url).replace("not-a-real-key", KEY)
    done = subprocess.run(["sh", "-ec", snippet], capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == dify.expected_answer(QUESTION)


def test_every_snippet_is_run() -> None:
    """By a test of this module, except the one that starts Open WebUI."""
    assert {language: len(snippets(language)) for language in ("python", "js", "sh")} == {"python": 4, "js": 1, "sh": 2}


def test_the_document_names_the_versions_that_were_tried() -> None:
    """Those of requirements-clients.txt and package.json, in the table and above each snippet."""
    pins = re.findall(
        r"^(\S*openai|litellm)==(\S+)", (ROOT / "requirements-clients.txt").read_text("utf-8"), re.MULTILINE
    )
    pins += json.loads((ROOT / "tests" / "clients" / "package.json").read_text("utf-8"))["dependencies"].items()

    assert len(pins) == 4
    assert not [pin for pin in pins if f"`{pin[0]}` {pin[1]}" not in TEXT]
    table = re.findall(r"^\| .*?`(\S+)`.*? \| ([0-9.]+) \|", TEXT, re.MULTILINE)
    assert sorted(table) == sorted(pins)
