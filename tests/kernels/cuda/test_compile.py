"""NVRTC compiles every kernel for every chip, and the machine code holds what was meant. No GPU is needed."""

import re

import pytest

from tests.kernels.cuda import disassembly
from varbnn.errors import BackendError
from varbnn.kernels.cuda import cache, plan
from varbnn.kernels.cuda import compile as nvrtc

COMPILER = nvrtc.compiler()
TOOLS = ("cuobjdump", "nvdisasm")
MISSING = COMPILER if isinstance(COMPILER, str) else ", ".join(name for name in TOOLS if not disassembly.tool(name))

needs_nvrtc = pytest.mark.skipif(
    isinstance(COMPILER, str), reason=f"THE CUDA KERNELS ARE NOT COMPILED IN THIS RUN: {COMPILER}"
)
needs_tools = pytest.mark.skipif(bool(MISSING), reason=f"THE MACHINE CODE IS NOT LOOKED AT IN THIS RUN: no {MISSING}")

SOURCES = sorted(set(plan.SOURCES.values()))
NOW = [(9, 0), (12, 0)]  # Hopper, and a chip without binary tensor instructions
LATER = [(8, 0), (8, 6), (8, 9), (10, 0)]
CHIPS = [*NOW, *(pytest.param(chip, marks=pytest.mark.slow) for chip in LATER)]


@pytest.fixture
def compiled(request, monkeypatch, tmp_path):
    """Gives the kernels of a source for a chip, compiled once for each state of the sources."""
    monkeypatch.setenv(cache.VARIABLE, str(request.config.cache.mkdir("varbnn-cubins")))

    def compile_for(source, capability):
        return disassembly.kernels(nvrtc.machine_code(source, capability), tmp_path)

    return compile_for


def expected_kernels(source, capability):
    names = {name for name in plan.THREADS if plan.Launch(name, (1, 1)).source == source}
    if not plan.Chip(capability, 1).has_binary_mma:
        names = {name for name in names if not re.match(r"bits_(split|tile)", name)}
    return names


@needs_tools
@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: f"{chip[0]}.{chip[1]}")
@pytest.mark.parametrize("source", SOURCES)
def test_machine_code_has_every_kernel_and_none_spills(compiled, source, chip):
    kernels = compiled(source, chip)
    assert kernels.keys() == expected_kernels(source, chip)
    for name, kernel in kernels.items():
        local = {code for code in kernel.instructions if code.startswith(("STL", "LDL"))}
        assert (kernel.stack, kernel.local, local) == (0, 0, set()), name
        foreign = [
            routine for routine in kernel.routines if not re.search("_div_|_rem_|votesync|shflsync|warpsync", routine)
        ]
        assert foreign == [], f"{name} calls routines in place of instructions"


@needs_tools
@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: f"{chip[0]}.{chip[1]}")
def test_binary_products_are_native_and_and_popcount_or_none(compiled, chip):
    native = plan.Chip(chip, 1).has_binary_mma
    for name, kernel in compiled("bits", chip).items():
        matrix = {code for code in kernel.instructions if re.match("[A-Z]MMA", code)}
        assert matrix == ({"BMMA.168256.AND.POPC"} if native and "popcount" not in name else set()), name


@needs_tools
def test_real_and_8_bit_products_are_on_the_tensor_cores(compiled):
    for name, kernel in (compiled("real", (9, 0)) | compiled("table", (9, 0)) | compiled("int8", (9, 0))).items():
        matrix = {code.split(".")[0] for code in kernel.instructions if re.match("[A-Z]MMA", code)}
        expected = {"HMMA"} if re.match("real_(split|conv)", name) else {"IMMA"} if name.startswith("int8_") else set()
        assert matrix == expected, name


@needs_tools
def test_thresholds_are_not_contracted(compiled):
    """One fused multiply-add where two roundings are defined, and CPU and GPU would draw different signs."""
    for name, kernel in compiled("sample", (9, 0)).items():
        fused = sum(count for code, count in kernel.instructions.items() if code.startswith("FFMA"))
        products = sum(count for code, count in kernel.instructions.items() if code.startswith("FMUL"))
        # division is made of fused steps, one sequence for each of eight weights; the polynomial is not
        assert products >= 8 * 10, name
        assert fused <= 8 * 12, name


@needs_tools
@pytest.mark.slow
def test_a_slow_routine_in_place_of_a_binary_product_would_be_seen(monkeypatch, tmp_path):
    monkeypatch.setattr(nvrtc, "options_for", lambda architecture: nvrtc.OPTIONS)
    code, _ = COMPILER.compile("bits", "sm_100")
    routines = disassembly.kernels(code, tmp_path)["bits_tile_64"].routines
    assert any("mma_bit" in routine for routine in routines)


@needs_nvrtc
def test_9_0_gets_its_own_code_and_younger_chips_that_of_their_family():
    assert COMPILER.architecture((9, 0)) == "sm_90a"
    assert COMPILER.architecture((8, 6)) == "sm_86"
    highest = max(COMPILER.architectures())
    assert COMPILER.architecture((highest // 10, 9)) == f"sm_{highest}"
    assert COMPILER.architecture((99, 0)) == f"compute_{highest}"
    with pytest.raises(BackendError, match=r"not for capability \(1, 0\)"):
        COMPILER.architecture((1, 0))


@needs_nvrtc
def test_portable_code_is_made_for_chips_younger_than_the_compiler():
    code, _ = COMPILER.compile("signs", f"compute_{max(COMPILER.architectures())}")
    assert b".entry pack_signs" in code


@needs_nvrtc
def test_a_source_that_does_not_compile_shows_the_compilers_log(monkeypatch, tmp_path):
    (tmp_path / "broken.cu").write_text('extern "C" __global__ void k() { undeclared = 1; }')
    monkeypatch.setattr(nvrtc, "SOURCES", tmp_path)
    with pytest.raises(BackendError, match=r'broken\.cu does not compile for sm_80(?s:.*)"undeclared" is undefined'):
        COMPILER.compile("broken", "sm_80")


def test_without_nvrtc_the_reason_says_what_to_install(monkeypatch):
    monkeypatch.setattr(nvrtc, "candidates", list)
    assert "pip install nvidia-cuda-nvrtc" in nvrtc.compiler.__wrapped__()


def test_an_nvrtc_that_does_not_load_is_named_with_the_reason(monkeypatch, tmp_path):
    broken = tmp_path / "libnvrtc.so.13"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(nvrtc, "candidates", lambda: [broken])
    reason = nvrtc.compiler.__wrapped__()
    assert str(broken) in reason
    assert "cannot be used" in reason


def test_wheels_of_cuda_12_and_13_are_found_and_the_alternative_libraries_left_out(monkeypatch, tmp_path):
    for place in ("cu13/lib/libnvrtc.so.13", "cu13/lib/libnvrtc.alt.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "cu13/lib/libnvrtc-builtins.so.13.0").touch()

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(nvrtc.importlib.util, "find_spec", lambda name: Spec)
    found = [path.name for path in nvrtc.candidates() if tmp_path in path.parents]
    assert sorted(found) == ["libnvrtc.so.12", "libnvrtc.so.13"]
    monkeypatch.setattr(nvrtc.torch.version, "cuda", "12.6")
    assert nvrtc.candidates()[0].name.startswith("libnvrtc.so.12")
