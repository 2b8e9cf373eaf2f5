"""Captions in the studio: short under the images of a check, whole on the page of one image, found by their words."""

from __future__ import annotations

from data.pictures import encode, put, scene
from image_studio import checked, studio


def test_captions_stand_under_images_and_whole_on_their_page(tmp_path):
    long = "a <b>red</b> bus " + "in the rain " * 30
    rows = [f'{i}.png,"one of {i} green trees on a meadow"' for i in range(2, 12)]
    rows += [f'0.png,"{long}"', '0.png,"a wet day"', '1.png,"one of 2 green trees on a meadow"']
    for i in range(12):
        put(tmp_path / "photos" / f"{i}.png", encode(scene(i)))
    put(tmp_path / "photos" / "pairs.csv", "image,caption\n" + "\n".join(rows))
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(tmp_path / "photos")})
        page = checked(client, "photos")
        assert '<b translate="no">one of 2 green trees on a meadow</b>' in page
        image = client.get("/data/photos/image?id=0.png").text
        assert "a &lt;b&gt;red&lt;/b&gt; bus in the rain" in image
        assert "<li>a wet day</li>" in image
        assert f"{'in the rain ' * 30}".strip() in image
        assert "It shows" not in image  # a caption is no class that a word changes
        tiles = client.get("/data/photos/tiles?q=wet").json()
        assert [one["id"] for one in tiles] == ["0.png"]
        assert tiles[0]["label"].endswith("… (+1)")
