"""What any installation must be able to do: one process that goes from a network to everything that can be made of it.

Run by `.ci/lower_bounds.py`, with one package at the lowest version that pyproject.toml allows.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile

import torch
from torch import nn

import rank_search as rs
from rank_search.cli.main import app

STORE, NAME = "smoke.sqlite", "compressed"


def main(package: str) -> None:
    """Search, ask, draw and export in a folder that is thrown away; then what only this package is there for."""
    logging.basicConfig()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        network, batches = trained()
        found = rs.compress(
            network, train=batches, selection=batches, test=batches, trials=8, store=STORE, training={"epochs": 1}
        )
        trial = found.front[0].number
        found.front.to_pandas()
        found.export(trial, "exported")
        rs.load("exported")(batches[0][0])
        rs.pack_model(network, [inputs for inputs, _ in batches], example=batches[0][0][:1]).write("packed.rsz")
        rs.load("packed.rsz")(batches[0][0])
        ask(trial)
        if package in ("onnx", "onnxruntime", "onnxscript"):
            found.export(trial, "onnx", format="onnx")
        os.chdir("/")
    if package == "psycopg":
        on_postgresql()
    if package == "s3fs":
        on_s3()
    if package == "transformers":
        with tempfile.TemporaryDirectory() as folder:
            on_transformers(folder)
    if package == "scikit-learn":
        from sklearn.datasets import load_digits

        load_digits()


def trained() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """A small network, and data on which it is right."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    ).eval()
    inputs = torch.randn(64, 1, 8, 8)
    return network, [(part, network(part).argmax(1)) for part in inputs.split(32)]


def ask(trial: int) -> None:
    """Every verb that asks a store."""
    verbs = (
        f"studies {STORE}",
        f"trials {STORE} {NAME} --format csv",
        f"front {STORE} {NAME} --plot",
        f"front {STORE} {NAME} --knee --format json",
        f"show {STORE} {NAME} {trial}",
        f"check {STORE} {NAME}",
        f"status {STORE} {NAME}",
        f"plot {STORE} {NAME} -o front.svg",
        f"report {STORE} {NAME} -o report.html",
        "plugins",
    )
    for verb in verbs:
        app(verb.split(), standalone_mode=False)
    import optuna_dashboard

    from rank_search.observe.optuna_storage import mirrored

    with rs.Store.open(STORE) as store:
        optuna_dashboard.wsgi(mirrored(store))


def on_postgresql() -> None:
    """A study in a store on a server of its own."""
    from tests.store.postgres import Server, programs_or_skip

    with (
        Server(programs_or_skip()) as server,
        rs.Store.open(server.url(server.create_database()), create=True) as store,
    ):
        assert store.studies() == []


def on_transformers(folder: str) -> None:
    """A model of that package, there and back."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes)).eval()
    tokens = torch.randint(3, 32, (80,))
    task = rs.LanguageModel(network=network, training_tokens=tokens, selection_tokens=tokens, length=8)
    tables = {
        "study": {"name": NAME, "trials": 3, "store": f"{folder}/{STORE}"},
        "task": {"factory": "(in memory)"},
        "layers": {"include": ["*proj"], "factorizations": ["svd"]},
        "search": {"objectives": ["nats", "params"]},
        "training": {"epochs": 0},
        "folder": folder,
    }
    result = rs.run_study(rs.Study.model_validate(tables), task=task)
    with rs.Store.open(result.store) as store:
        rs.export_trial(store, NAME, result.front[-1].number, f"{folder}/small", "transformers", task=task)
    opened = AutoModelForCausalLM.from_pretrained(f"{folder}/small", trust_remote_code=True)
    assert opened.generate(tokens[None, :5], max_new_tokens=3, eos_token_id=None).shape == (1, 8)


def on_s3() -> None:
    """A file in a bucket on a server of its own."""
    from moto.server import ThreadedMotoServer

    from rank_search.artifacts import artifacts_at

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        import s3fs

        s3fs.S3FileSystem().mkdir("bucket")
        artifacts = artifacts_at("s3://bucket/files", "unused")
        written = artifacts.write("model", "a", ".coded", b"bytes")
        assert artifacts.names() == [written.location], artifacts.names()
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
