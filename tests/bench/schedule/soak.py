"""A sweep under random kills: ``python tests/bench/schedule/soak.py MINUTES FOLDER``.

Not a test of the suite, since it takes minutes. Jobs of the network `shaky` run on a cluster of three machines in one,
from drivers that are killed as well. Every few seconds something is killed that was drawn at random: a training, the
Ray worker above one, a machine, or the driver, which is then started again. In the end every job must have one complete
record, begun and completed once each in its log, with the weights of a run that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "support")]

import torch  # noqa: E402
from sweeping import Sweeps, environment_with, install_shaky, process_of, trainings  # noqa: E402

from bench.store import WEIGHTS, Store  # noqa: E402
from data.phantom import write_dataset  # noqa: E402

_CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(json.dumps(cluster.address), flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(int(line)), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=1))
    print("gone", flush=True)
cluster.shutdown()
"""


def main(minutes: float, folder: Path, seed: int = 0) -> int:
    """Returns how many records are missing, doubled or different."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    write_dataset(folder / "phantoms", cases=6, size=32, seed=1)
    install_shaky(folder / "plugin")
    environment = environment_with(folder / "plugin", folder / "cache", pause_s=0.3)
    cluster = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert cluster.stdin
    assert cluster.stdout
    address = json.loads(cluster.stdout.readline())
    sweeps = Sweeps(folder / "phantoms", folder / "results", environment)
    seeds = [number for number in range(1000) if number not in (9, 10, 11)]
    asked, killed = 12, Counter()

    def start() -> subprocess.Popen[str]:
        chosen = ",".join(map(str, seeds[:asked]))
        command = ("--seed", chosen, "--ray-address", address, "--device", "cpu", "--cpus-per-job", "1")
        return sweeps.start(*command, "--retries", "1000")

    until = time.monotonic() + 60 * minutes
    run = start()
    while True:
        late = time.monotonic() > until
        time.sleep(0.5 if late else draw.uniform(1, 6))
        if run.poll() is not None:
            run.communicate()
            done = sum(record.status == "complete" for record in sweeps.records().values())
            print(
                f"{time.strftime('%H:%M:%S')} driver ended with {run.returncode}; {done} of {asked} complete",
                flush=True,
            )
            if late and done == asked:
                break
            if done == asked:
                asked += 12
            run = start()
            continue
        if late:
            continue
        what = draw.choice(("training", "training", "training", "worker", "machine", "driver"))
        victims = [record for record in sweeps.running(steps=0) if process_of(record) in trainings()]
        if what == "training" and victims:
            os.kill(process_of(draw.choice(victims)), signal.SIGKILL)
        elif what == "worker" and victims:
            parent = int(
                Path(f"/proc/{process_of(draw.choice(victims))}/stat").read_text().rpartition(")")[2].split()[1]
            )
            if parent > 1:
                os.kill(parent, signal.SIGKILL)
        elif what == "machine":
            cluster.stdin.write(f"{draw.randrange(2)}\n")
            cluster.stdin.flush()
            cluster.stdout.readline()
        elif what == "driver":
            run.kill()
        else:
            continue
        killed[what] += 1
        print(f"{time.strftime('%H:%M:%S')} killed a {what}", flush=True)
    cluster.stdin.close()
    cluster.wait(60)
    left = trainings()

    print("what nobody disturbed, to compare with", flush=True)
    some = seeds[: min(asked, 24)]
    calm = folder / "undisturbed"
    alone = sweeps.start("--seed", ",".join(map(str, some)), "--scheduler", "inline", results=calm, pause_s=0)
    alone.communicate()
    wrong = 0
    for record in sweeps.records().values():
        completed = (record.folder / "log.txt").read_text().count(" complete")
        if record.status != "complete" or completed != 1:
            wrong += 1
            print(f"{record.key}: {record.status}, {completed} times complete")
    for other in Store(calm).records():
        ours = torch.load(sweeps.results / other.key / WEIGHTS, weights_only=True)["model"]
        theirs = torch.load(other.folder / WEIGHTS, weights_only=True)["model"]
        if not all(torch.equal(ours[name], theirs[name]) for name in theirs):
            wrong += 1
            print(f"{other.key}: other weights than undisturbed")
    lost = asked - len(sweeps.records())
    print(
        f"killed {dict(killed)}, {sum(killed.values())} in all; {asked} jobs, {lost} lost, {wrong} wrong; left: {left}"
    )
    return lost + wrong + len(left)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), Path(sys.argv[2])))
