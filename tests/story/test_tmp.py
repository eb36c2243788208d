from tests.story.small import *
import traceback
TASKS="unlucky a_list ModelRaises ModelIsADict ExampleRaises ExampleDoesNotFit ExampleIsAList NoTrainingData NoSelectionData NoTestData SelectionRaises LossPerExample LossRaises LossWithoutGradient MetricIsNan MetricRaises MetricIsANumber MetricIsATensor MetricOfOurs WeightsWithNan NothingToFactorize TinyLayers NOT_A_FUNCTION absent options".split()
CHANGES = [dict(task={"factory": f"faulty.py:{t}"}) for t in TASKS] + [
 dict(task={"factory": "nofile.py:x"}), dict(task={"factory": "no.such.module:x"}), dict(task={"factory": "stripes.py"}), dict(task={"factory": "stripes.py:task", "options": {"a": 1}}),
 dict(search={"objectives": ["eror"]}), dict(search={"objectives": ["latency", "test_error"]}), dict(search={"constraints": ["macs <= 0.5"]}), dict(search={"constraints": ["mcs <= 0.5 * dense"]}), dict(search={"constraints": ["error <= 0.5 of dense"]}),
 dict(search={"constraints": ["test_error <= 0.5"]}),
 dict(search={"constraints": ["latency <= 1"]}),
 dict(search={"sampler": "tpee"}), dict(search={"options": {"popsize": 2}}), dict(search={"options": {"n_startup_trials": "many"}}),
 dict(layers={"include": ["conv*"]}), dict(layers={"factorizations": ["svdd"]}), dict(layers={"factorizations": ["broken.py:X"]}), dict(layers={"rules":[{"match": "nothing", "factorizations": []}]}),
 dict(search={"reference": {"error": -1}}),
 dict(search={"reference": {"macs": "x"}}),
 dict(study={"store": ""}),
]
def test_x(command, tmp_path):
    import time
    for i,c in enumerate(CHANGES):
        s = write_study(tmp_path / str(i), **c)
        t=time.time()
        try:
            x = command("run", s.file, "--trials", 3, "--store", s.store)
            msg=f"{x.code}\nOUT{x.out}\nERR{x.err}"
        except BaseException as e:
            msg="RAISED "+traceback.format_exc()[-900:]
        with open("/tmp/out.txt","a") as f: f.write(f"$ {c} {time.time()-t:.2f} {msg} {sorted(p.name for p in s.folder.iterdir())}\n\n")
