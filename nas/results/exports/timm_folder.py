"""Writing a folder that `timm.create_model("local-dir:FOLDER")` opens: configuration, weights, model card.

timm (1.0.31, `timm/models/_hub.py`) reads `architecture`, `model_args` and `pretrained_cfg` of `config.json`.
"""

import json
from pathlib import Path

from safetensors.torch import save

from metaformer.documents import sha256_of
from metaformer.errors import UserError
from metaformer.network.model import MetaFormer
from metaformer.timm_models import EXPORTED_WEIGHTS, mf_exported, timm_configuration
from nas.results.exports.card import card_text
from nas.results.exports.subject import Images, Subject

CONFIG, CARD = "config.json", "README.md"
FILES = (CONFIG, EXPORTED_WEIGHTS, CARD)


def write_timm(subject: Subject, folder: Path) -> None:
    """The files of a trial's model, into a folder that is there.

    Raises:
        UserError: How images become its input cannot be told here.
    """
    if subject.images is None or subject.model is None:
        raise UserError(
            f"data: must be there, since the folder says how images are normalised, got none ({subject.why_no_images})"
        )
    state = {name: tensor.contiguous() for name, tensor in subject.model.state_dict().items()}
    (folder / EXPORTED_WEIGHTS).write_bytes(
        save(state, metadata={"format": "pt"})
    )  # save_file lets only its owner read
    config = _config(subject.model, subject.images, sha256_of(folder / EXPORTED_WEIGHTS))
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card_text(subject), encoding="utf-8")


def _config(model: MetaFormer, images: Images, weights_sha256: str) -> dict[str, object]:
    arch = model.arch
    return {
        "architecture": mf_exported.__name__,
        "num_classes": arch.head.num_classes,
        "num_features": arch.stages[-1].width,
        "label_names": list(images.class_names),
        "model_args": {
            "architecture": arch.model_dump(mode="json"),
            "digest": arch.digest,
            "weights_sha256": weights_sha256,
        },
        "pretrained_cfg": {
            "custom_load": False,
            "crop_mode": "center",
            "pool_size": None,
            **timm_configuration(arch, images.preprocessing),
        },
    }
