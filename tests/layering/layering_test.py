"""Holds every #include against the table of who may include whom (ARCHITECTURE.md, "Who may include whom").

Run by ctest. A line of the table is a folder, the project folders it may include besides itself, and the third-party
libraries it may use; std, absl and POSIX are free everywhere. The longest matching folder of a file is its line.
"""

import os
import re
import subprocess

ROOT = os.environ.get("KINO_SOURCE_DIR") or os.path.join(os.path.dirname(__file__), "..", "..")

# Third-party headers by library.
LIBRARIES = {
    "torch": r"^(ATen|c10|torch)/",
    "cuda": r"^(cuda|nvrtc|cublas|cudnn)",
    "protobuf": r"^(google/|kino/v1/.*(?<!grpc)\.pb\.h$)",
    "grpc": r"^(grpc|grpcpp)/|\.grpc\.pb\.h$",
    "sqlite3": r"^sqlite3\.h$",
    "libpq": r"^(libpq-fe|postgres_ext)\.h$",
    "CLI11": r"^CLI/",
    "yaml-cpp": r"^yaml-cpp/",
    "spdlog": r"^spdlog/",
    "prometheus": r"^prometheus/",
    "openssl": r"^openssl/",
    "ffmpeg": r"^lib(av|sw)[a-z]+/",
    "images": r"^(png|jpeglib|jerror|webp/.*)(\.h)?$",
    "json": r"^nlohmann/",
    "pcre2": r"^pcre2\.h$",
    "gtest": r"^(gtest|gmock)/",
    "benchmark": r"^benchmark/",
}

ENGINE_ORDER = ["engine/core", "engine/describe", "engine/ops", "engine/quant", "engine/weights", "engine/memory",
                "engine/nn"]


def below(folder):
    """The engine folders under `folder` in the stack."""
    return ENGINE_ORDER[: ENGINE_ORDER.index(folder)]


TORCH = ["torch", "cuda", "json"]
# folder: (project folders it may include, libraries it may use)
TABLE = {
    "scheduler": ([], ["sqlite3", "libpq"]),
    "engine/core": ([], ["torch", "cuda", "json"]),
    "engine/describe": (["engine/core"], ["json"]),
    "engine/media": (["engine/core"], ["ffmpeg", "images"]),
    "engine/ops": (below("engine/ops"), TORCH),
    "engine/quant": (below("engine/quant"), TORCH),
    "engine/weights": (below("engine/weights"), TORCH),
    "engine/memory": (below("engine/memory"), TORCH),
    "engine/nn": (below("engine/nn"), TORCH),
    "engine/text": (ENGINE_ORDER, TORCH + ["pcre2"]),
    "engine/samplers": (ENGINE_ORDER, TORCH),
    "engine/cache": (ENGINE_ORDER, TORCH),
    "engine/models/common": (ENGINE_ORDER + ["engine/text", "engine/samplers", "engine/cache", "engine/media",
                                             "engine/engine.h"], TORCH),
    # A family: everything below, never another family.
    "engine/models/*": (ENGINE_ORDER + ["engine/text", "engine/samplers", "engine/cache", "engine/media",
                                        "engine/models/common", "engine/engine.h"], TORCH),
    # What traces a pipeline: above the families, of which it knows the registry alone.
    "engine/trace": (ENGINE_ORDER + ["engine/models/common", "engine/models/registry.h"], TORCH),
    "engine/models": (["engine"], TORCH),
    "engine": (["engine"], TORCH),
    "server/command_line": ([], ["CLI11"]),
    "server/digest": ([], ["openssl"]),
    "server/config": (["server/command_line", "server/digest", "engine/describe", "engine/core/machine.h"], ["yaml-cpp", "spdlog"]),
    "server/supervisor": (["server/config", "server/command_line", "server/digest", "engine/describe"], ["spdlog"]),
    "server/media": (["engine/core", "engine/media", "server/command_line"], []),
    "server/convert": (["engine/engine.h", "engine/describe", "engine/core/dtype.h", "engine/core/status.h", "server/media",
                        "server/command_line"],
                       ["protobuf"]),
    "server/frontend": (["scheduler", "server/config", "server/convert", "server/digest", "server/command_line", "server/media",
                         "engine/describe", "engine/core/status.h", "engine/core/dtype.h", "engine/core/cancel.h"],
                        ["protobuf", "grpc", "prometheus", "spdlog", "openssl"]),
    "server/plan": (["server/command_line"], ["protobuf"]),
    # What the server itself asks of a node, without the server.
    "server/doctor": (["server/config", "engine/describe", "engine/core/machine.h", "server/frontend/acceptor", "server/frontend/auth",
                       "server/frontend/tls"], []),
    "server/cli": (["server/convert", "server/command_line", "server/plan", "server/digest", "server/config", "server/doctor"],
                   ["protobuf", "grpc"]),
    "server/worker": (["scheduler/clock.h", "scheduler/fault_point.h", "scheduler/files", "engine/engine.h", "engine/describe", "engine/core/status.h", "engine/core/log.h",
                       "engine/core/dtype.h", "engine/core/cancel.h", "engine/core/machine.h", "server/config",
                       "server/convert", "server/digest", "server/command_line", "server/media"], ["protobuf", "grpc", "spdlog"]),
    "server/render": (["engine/engine.h", "engine/describe", "engine/core/status.h", "engine/core/log.h",
                       "engine/core/dtype.h", "engine/core/cancel.h", "engine/core/machine.h", "engine/media/npy.h",
                       "server/convert", "server/command_line", "server/media", "server/plan"], ["protobuf"]),
    "tests": (["engine", "scheduler", "server", "tests"], list(LIBRARIES)),
}


def sources():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "*.h", "*.cc", "*.cu", "*.cuh"], check=True,
                            capture_output=True, text=True).stdout.split()
    return [path for path in listed if os.path.exists(os.path.join(ROOT, path))]


def rule_of(path):
    """The table's line for a file: its folder, or the nearest one above; a family's is the wildcard."""
    folder = os.path.dirname(path)
    while folder:
        if folder in TABLE:
            return folder
        if os.path.dirname(folder) == "engine/models":
            return "engine/models/*"
        folder = os.path.dirname(folder)
    return None


def includes(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
            if match:
                yield number, match.group(1)


def library_of(header):
    return next((name for name, pattern in LIBRARIES.items() if re.search(pattern, header)), None)


def own_folder(path, folder):
    if folder == "engine/models/*":
        return "/".join(path.split("/")[:3])
    return folder


def allowed(path, folder, header):
    own = own_folder(path, folder)
    places, libraries = TABLE[folder]
    if header.startswith(("engine/", "scheduler/", "server/", "tests/")):
        return any(header == place or header.startswith(place + "/") for place in [own, *places])
    library = library_of(header)
    return library is None or library in libraries


def test_every_file_has_a_line():
    files = sources()
    assert files
    assert not [path for path in files if rule_of(path) is None]


def test_includes_follow_the_table():
    wrong = [f"{path}:{number}: {header} (line '{rule_of(path)}' of the table)"
             for path in sources() for number, header in includes(path)
             if rule_of(path) and not allowed(path, rule_of(path), header)]
    assert not wrong, "\n".join(wrong)


def test_no_file_includes_torch_and_protobuf():
    wrong = []
    for path in sources():
        used = {library_of(header) for _, header in includes(path)}
        if "torch" in used and used & {"protobuf", "grpc"}:
            wrong.append(path)
    assert not wrong, "\n".join(wrong)


def test_public_headers_of_the_engine_have_no_torch():
    """What the server may include: the door, describe, media, and all they include."""
    seen = set()
    queue = ["engine/engine.h"] + [path for path in sources()
                                   if path.endswith(".h") and path.startswith(("engine/describe/", "engine/media/"))]
    wrong = []
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        for number, header in includes(path):
            if library_of(header) in ("torch", "cuda", "protobuf", "grpc"):
                wrong.append(f"{path}:{number}: {header}")
            if header.startswith("engine/"):
                queue.append(header)
    assert not wrong, "\n".join(wrong)


def test_families_are_named_only_in_their_folder():
    """No `if (family == ...)` outside a family's folder: the registries hold a line each, and nothing else."""
    wrong = []
    for path in sources():
        if path.startswith(("engine/models/", "tests/")):
            continue
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if re.search(r'family\w*(\(\))?\s*[!=]=\s*"', line):
                    wrong.append(f"{path}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


# What a family builds on. Beyond it lie the insides of others: residency and homes, formats, the planner, media.
FAMILY_DOORS = {
    "engine/core": ["component_files", "file_shapes", "json", "run_context", "status", "status_bridge", "stride3d"],
    "engine/describe": ["conditions", "families", "request", "vae_tile_sizes"],
    "engine/memory": ["component"],
    "engine/models/common": ["clip_tiles", "component_loading", "condition_frames", "family_run", "feathered_tiles", "guidance",
                             "image_processor", "joined_decode", "latent_statistics", "latents", "pipeline", "t5_components",
                             "templated_text", "vae_tiles"],
    "engine/nn": ["block_stack", "causal_conv3d", "clip_layers", "frame_chain", "frame_layers", "grid_positions",
                  "joint_projections", "mlp", "modulation", "parallel_mlp", "run_length", "timestep_embedding", "token_refiner"],
    "engine/ops": ["attention", "conv3d", "half_rotary", "joint_attention", "linear", "norm_modulate", "norm_rotary", "norm_silu",
                   "resample_frames", "space_depth"],
    "engine/samplers": ["ddim", "euler_ancestral", "euler_ancestral_rf", "first_step", "flow_match_euler"],
    "engine/text": ["bpe_tokenizer", "caption_cleaning", "clip_config", "clip_text_encoder", "encoder_files", "image_reader",
                    "llama_config", "llama_encoder", "plain_text", "prompt_template", "t5_config", "vision_encoder"],
    "engine/weights": ["weight_set"],
}
# What a family includes beyond that, each with its reason.
BEYOND_THE_DOORS = {"ltx": set(), "mochi": set(), "cogvideox": set(), "allegro": set(), "hunyuan_video": set()}


def test_a_family_comes_in_through_the_doors():
    doors = {f"{folder}/{name}.h" for folder, names in FAMILY_DOORS.items() for name in names}
    beyond, used = {}, set()
    for path in sources():
        if rule_of(path) != "engine/models/*":
            continue
        family = path.split("/")[2]
        found = beyond.setdefault(family, set())
        for _, header in includes(path):
            if header.startswith("engine/") and not header.startswith(f"engine/models/{family}/"):
                used.add(header)
                if header not in doors:
                    found.add(header)
    assert beyond == BEYOND_THE_DOORS
    assert used & doors == doors, "a door that no family uses"


def test_one_file_asks_what_the_machine_has():
    """Control groups count: engine/core/machine.h knows what may be used."""
    asks = re.compile(r"_SC_(AV)?PHYS_?PAGES|_SC_NPROCESSORS|hardware_concurrency|\bget_nprocs|\bsysinfo\(|MemTotal")
    found = set()
    for path in sources():
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            if not path.startswith("tests/") and asks.search(file.read()):
                found.add(path)
    assert found == {"engine/core/machine.cc"}


def test_no_wall_clock_decides_in_the_worker():
    """Leases, deadlines and pacing are monotonic, through scheduler/clock.h. absl's timed waits take or make wall times."""
    wall = re.compile(r"absl::Now\b|system_clock|CLOCK_REALTIME|gettimeofday|\btime\((NULL|nullptr|0)\)"
                      r"|Wait(With|For).*(Deadline|Timeout)|clock\w*(\.|->|\(\)\.)Now\(")
    wrong, seen = [], 0
    for path in sources():
        if not path.startswith("server/worker/"):
            continue
        seen += 1
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if wall.search(line.split("//")[0]):
                    wrong.append(f"{path}:{number}: {line.strip()}")
    assert seen > 10
    assert not wrong, "\n".join(wrong)
    for bad in ("absl::Now()", "changed_.WaitWithTimeout(&mutex_, left)", "clock_.Now()", "std::chrono::system_clock::now()",
                "WaitForNotificationWithTimeout(x)"):
        assert wall.search(bad), bad


def test_the_table_bites():
    assert not allowed("scheduler/jobs/job.cc", "scheduler", "ATen/ATen.h")
    assert not allowed("engine/models/ltx/run.cc", "engine/models/*", "engine/models/mochi/vae.h")
    assert not allowed("engine/ops/rms.cc", "engine/ops", "engine/nn/mlp.h")
    assert not allowed("server/frontend/main.cc", "server/frontend", "engine/engine.h")
    assert allowed("server/frontend/main.cc", "server/frontend", "grpcpp/server.h")
