"""`acrf-tui serve`: the real server, asked as a browser would, and as somebody who should not get in."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

PROGRAM = [sys.executable, "-m", "acrf_tui.cli"]


@asynccontextmanager
async def served(tmp_path: Path, *options: str) -> AsyncIterator[tuple[str, str, asyncio.subprocess.Process]]:
    """The server's address up to the port, its secret path, and its process."""
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "s"), "XDG_CONFIG_HOME": str(tmp_path / "c")}
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "serve", "--port", "0", "--runs", str(tmp_path / "runs"), *options,
        stdout=subprocess.PIPE, env={**environment, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        found = re.search(r"(http://127\.0\.0\.1:\d+)/([\w-]{20,})/$", line.strip())
        assert found is not None, line
        tunnel = (await process.stdout.readline()).decode()
        assert f"ssh -L {found[1].rpartition(':')[2]}:127.0.0.1:{found[1].rpartition(':')[2]}" in tunnel
        yield found[1], found[2], process
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)


async def test_whoever_has_the_address_sees_the_app_and_nobody_else(tmp_path: Path) -> None:
    async with served(tmp_path) as (base, secret, process), aiohttp.ClientSession() as session:
        host = base.removeprefix("http://")

        async def status(path: str, **headers: str) -> int:
            async with session.get(base + path, headers=headers) as answer:
                return answer.status

        assert await status("/") == 404
        assert await status("/ws") == 404
        assert await status("/static/js/textual.js") == 404
        assert await status(f"/{secret[:-1]}/") == 404
        assert await status(f"/{secret}/", Host="evil.example") == 403
        assert await status(f"/{secret}/", Host="127.0.0.1.evil.example") == 403
        assert await status(f"/{secret}/static/js/textual.js") == 200

        async with session.get(f"{base}/{secret}/", headers={"Host": "localhost:9999"}) as answer:
            page = await answer.text()
            assert answer.status == 200
            assert f"ws://localhost:9999/{secret}/ws" in page  # at the port where the tunnel begins
            assert f"http://localhost:9999/{secret}/static/" in page
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]

        for origin in (None, "http://evil.example", "http://127.0.0.1:1", "null"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"{base}/{secret}/ws", headers={"Origin": origin} if origin else {})
            assert refused.value.status == 403

        seen = b""
        async with session.ws_connect(
            f"{base}/{secret}/ws?width=100&height=30", headers={"Origin": f"http://{host}"}
        ) as window:
            while b"paper-defaults" not in seen:
                message = await asyncio.wait_for(window.receive(), 60)
                assert message.type == aiohttp.WSMsgType.BINARY, message
                seen += message.data
            await window.send_json(["stdin", "?"])
            while b"Start the demo" not in seen:
                message = await asyncio.wait_for(window.receive(), 60)
                seen += message.data

        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_it_listens_on_the_loopback_address_only(tmp_path: Path) -> None:
    async with served(tmp_path) as (base, _, process):
        port = int(base.rpartition(":")[2])
        with pytest.raises(OSError, match=r"."), socket.create_connection(("127.0.0.2", port), timeout=2):
            pass  # also loopback, but another address: a server on all of them would answer
        hexport = f":{port:04X}"
        rows = [line.split()[1] for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]]
        assert {row for row in rows if row.endswith(hexport)} >= {f"0100007F{hexport}"}
        assert f"00000000{hexport}" not in rows


def test_a_port_that_is_taken_or_none_is_one_message(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run([*PROGRAM, "serve", "--port", str(port)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr.startswith(f"acrf-tui: serve: port {port} cannot be used")
    done = subprocess.run([*PROGRAM, "serve", "--port", "70000"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "0 to 65535" in done.stderr


def test_without_the_library_it_says_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['textual_serve'] = None; from acrf_tui.cli import main; sys.exit(main(['serve']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'acrf-tui[serve]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_loads_no_server_to_run_other_commands() -> None:
    names = "('aiohttp', 'argcomplete', 'jinja2')"
    code = f"import sys, acrf_tui.cli; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
