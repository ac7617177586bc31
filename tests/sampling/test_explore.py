"""The explore page: what the server answers, and the page itself in a headless Chromium."""

import base64
import http.client
import io
import json
import socket
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from support.headless_chromium import CHROMIUM, Page
from support.small_generators import lively, small_generator

from dnnlib import UserError
from training import networks
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.networks.image_space import to_uint8
from training.sampling.attention.maps import attention_maps
from training.sampling.attention.picture import overlay
from training.sampling.explorer import serve, style_groups
from training.sampling.pictures import enlarged, to_pil
from training.sampling.seeds import class_label, image_of_seed, images_of_styles, styles_of_seeds

SCALE = 16  # of 32x32 images


@pytest.fixture(scope="module")
def G():
    return small_generator(c_dim=3)


@pytest.fixture(scope="module")
def server(G):
    server = serve(G, "net.pkl", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def get(server, path, host=None):
    connection = http.client.HTTPConnection(*server.server_address, timeout=60)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read()


def image(server, query):
    status, body = get(server, f"/image?{query}")
    assert status == 200, body
    return np.asarray(Image.open(io.BytesIO(body)))


def enlarged_array(pixels):
    return np.asarray(enlarged(to_pil(pixels), SCALE))


def test_it_listens_on_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"
    assert get(server, "/", host="evil.example:80")[0] == 403
    assert get(server, "/", host=f"localhost:{server.server_address[1]}")[0] == 200
    assert get(server, "/../generate.py")[0] == 404


def test_info(server):
    info = json.loads(get(server, "/info")[1])
    assert (info["size"], info["classes"]) == ([32, 32], 3)
    assert info["layers"] == {"8x8.0": 2, "16x16.0": 2, "16x16.1": 2, "32x32.0": 1}
    assert info["groups"] == {"coarse": [0, 1], "middle": [2, 2], "fine": [3, 4]}


def test_images_are_the_generators(server, G):
    expected = image_of_seed(G, 7, class_label(G, 2), 0.6, "none")
    assert np.array_equal(image(server, "seed=7&psi=0.6&noise=none&class=2"), enlarged_array(expected))
    random = image_of_seed(G, 7, class_label(G, 2), 1, "random")
    assert np.array_equal(image(server, "seed=7&noise=random&class=2"), enlarged_array(random))


def test_mixing_by_groups(server, G):
    c = class_label(G, 0)
    ws, other = styles_of_seeds(G, [1], c), styles_of_seeds(G, [2], c)
    mixed = torch.cat([other[:, :2], ws[:, 2:3], other[:, 3:]], dim=1)
    shown = image(server, "seed=1&class=0&other=2&groups=coarse,fine")
    assert np.array_equal(shown, enlarged_array(images_of_styles(G, mixed)[0]))
    alone = image(server, "seed=1&class=0&other=2")
    assert np.array_equal(alone, enlarged_array(images_of_styles(G, ws)[0]))


def test_attention_overlay(server, G):
    ws = styles_of_seeds(G, [1], class_label(G, 0))
    picture, maps = attention_maps(G, ws, (0.25, 0.75))
    pixels = to_uint8(picture[0])
    one = image(server, "seed=1&class=0&y=0.25&x=0.75&layer=16x16.1&head=1")
    assert np.array_equal(one, np.asarray(overlay(pixels, maps["16x16.1"][1], (0.25, 0.75), SCALE)))
    mean = image(server, "seed=1&class=0&y=0.25&x=0.75&layer=8x8.0")
    assert np.array_equal(mean, np.asarray(overlay(pixels, maps["8x8.0"].mean(0), (0.25, 0.75), SCALE)))


@pytest.mark.parametrize(
    "query",
    [
        "seed=x",
        "seed=-1&class=0",
        "class=9",
        "",
        "class=0&noise=loud",
        "class=0&psi=nan",
        "class=0&y=nan&x=0",
        "class=0&y=0&x=inf",
        "class=0&groups=huge",
        "class=0&y=0&x=0&layer=64x64.0",
        "class=0&y=0&x=0&layer=8x8.0&head=5",
    ],
)
def test_bad_requests_get_one_line(server, query):
    status, body = get(server, f"/image?{query}")
    assert status == 400
    assert body
    assert b"\n" not in body


def test_network_without_attention_still_shows_pictures():
    G = lively(networks.build(StyleGAN2Config(channel_base=64, img_resolution=(16, 16), z_dim=16, w_dim=16)))
    server = serve(G, "net.pkl", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert json.loads(get(server, "/info")[1])["layers"] == {}
    assert get(server, "/image?seed=1")[0] == 200
    server.shutdown()
    server.server_close()


def test_a_taken_port_is_one_line(server, G):
    with pytest.raises(UserError, match="--port"):
        serve(G, "net.pkl", server.server_address[1])


def test_groups_cover_all_styles_once():
    for num_ws in range(1, 20):
        assert sum(style_groups(num_ws).values(), []) == list(range(num_ws))


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_in_a_browser(server, tmp_path):
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    with Page(str(tmp_path / "profile")) as page:
        page.open(url + "#seed=3&class=1")
        page.wait_for("window.document.querySelector('#image')?.dataset.shown?.includes('seed=3')")
        assert page.evaluate("document.querySelector('#image').naturalWidth") == 512
        assert "3 classes" in page.evaluate("document.querySelector('#about').textContent")
        assert page.evaluate("document.querySelector('#class').value") == "1"
        assert page.evaluate("document.querySelector('#class').offsetParent !== null")
        plain = _shown(page)
        page.click("#next")
        page.wait_for("document.querySelector('#image').dataset.shown.includes('seed=4')")
        assert not np.array_equal(_shown(page), plain)
        page.click("#image", 0.75, 0.25)
        page.wait_for("document.querySelector('#image').dataset.shown.includes('x=0.7')")
        expected = image(server, page.evaluate("document.querySelector('#image').dataset.shown"))
        assert np.array_equal(_shown(page), expected)
        page.evaluate(
            "(s => {s.value = '16x16.1'; s.dispatchEvent(new Event('input'))})(document.querySelector('#layer'))"
        )
        page.wait_for("document.querySelector('#image').dataset.shown.includes('layer=16x16.1')")
        assert page.evaluate("document.querySelector('#head').options.length") == 3
        page.click("#clear")
        page.wait_for("!document.querySelector('#image').dataset.shown.includes('x=')")
        page.evaluate("(i => {i.value = 9; i.dispatchEvent(new Event('input'))})(document.querySelector('#other'))")
        page.click("#group-coarse")
        page.wait_for("document.querySelector('#image').dataset.shown.includes('groups=coarse')")
        page.evaluate("(i => {i.value = 7; i.dispatchEvent(new Event('input'))})(document.querySelector('#class'))")
        assert "0 to 2" in page.wait_for("document.querySelector('#error').textContent")
        page.evaluate("(i => {i.value = 1.5; i.dispatchEvent(new Event('input'))})(document.querySelector('#seed'))")
        said = "document.querySelector('#error').textContent.includes('whole number from 0 to 4294967295')"
        page.wait_for(said)
        page.evaluate("location.hash = '#seed=12&class=2'")  # a bookmark in the same tab
        page.wait_for("document.querySelector('#image').dataset.shown.includes('seed=12')")
        assert page.evaluate("document.querySelector('#class').value") == "2"
        assert not page.evaluate("document.querySelector('#group-coarse').checked")
        assert page.evaluate("document.querySelector('#error').textContent") == ""
        page.evaluate("HTMLAnchorElement.prototype.click = function() { window.saved = this.download }")
        page.click("#save")
        assert page.evaluate("window.saved") == "seed0012.png"
        assert page.errors == []


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_says_when_the_server_is_gone_and_hides_what_the_network_lacks(tmp_path):
    server = serve(small_generator(), "net.pkl", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Page(str(tmp_path / "profile")) as page:
        page.open(f"http://127.0.0.1:{server.server_address[1]}/")
        page.wait_for("document.querySelector('#image')?.dataset.shown")
        assert page.evaluate("document.querySelector('#class').offsetParent === null")
        server.shutdown()
        server.server_close()
        page.click("#next")
        assert "No answer" in page.wait_for("document.querySelector('#error').textContent")


def _shown(page: Page) -> np.ndarray:
    """The pixels of the image that the page shows."""
    script = """(async () => {
        const image = document.querySelector('#image'), canvas = document.createElement('canvas');
        await image.decode();
        canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
        canvas.getContext('2d').drawImage(image, 0, 0);
        return canvas.toDataURL('image/png').split(',')[1];
    })()"""
    data = base64.b64decode(page.evaluate(script))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_200_clients_at_once_are_all_served(server):
    """All connect before any is answered."""
    connections = [socket.create_connection(server.server_address[:2], timeout=60) for _ in range(200)]
    request = f"GET / HTTP/1.0\r\nHost: 127.0.0.1:{server.server_address[1]}\r\n\r\n".encode()
    for connection in connections:
        connection.sendall(request)
    answers = [connection.makefile("rb").readline() for connection in connections]
    for connection in connections:
        connection.close()
    assert all(b" 200 " in answer for answer in answers)
