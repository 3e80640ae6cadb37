// The one configuration file (YAML) as structs, shared by kinod, kino-frontend, kino-worker and
// kino. config/kino.yaml describes every key; a test holds it against this parser. Unknown keys,
// wrong types and values out of range are refused with file:line:column. Relative paths are
// relative to the file that names them. Values only: thread-safe once loaded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/describe/describe.h"

namespace kino::config {

// Absolute paths of PEM files. They are read anew when they change.
struct TlsConfig {
  std::string certificate;  // the server's, with its chain; empty: no TLS
  std::string key;
  std::string client_ca;  // who signs clients' certificates; empty: none is asked for
  bool require_client_certificate = false;
  bool is_on() const { return !certificate.empty(); }
};

struct ListenConfig {
  // host:port. Port 0: a free one, which <data_dir>/frontend.addr then names.
  std::string address = "127.0.0.1:50051";
  TlsConfig tls;
  // Off loopback even without TLS.
  bool allow_plaintext = false;
};

struct MetricsConfig {
  // Prometheus text format at /metrics, without TLS. Port 0: a free one, see
  // <data_dir>/metrics.addr.
  std::string address = "127.0.0.1:9464";
  // Off loopback all the same.
  bool allow_plaintext = false;
};

struct LogConfig {
  std::string level = "info";    // debug, info, warning, error
  std::string format = "plain";  // plain, json
};

// What a caller may do: use the server for its own jobs, or also what concerns others (load and
// unload models, let a quarantined job run again).
enum class Role { kUse, kOperate };

struct AuthToken {
  std::string tenant = "default";
  std::string sha256;  // of the token, lower-case hexadecimal
  Role role = Role::kUse;
};

struct AuthCertificate {
  // A name of a client's certificate: DNS name, e-mail address, URI or IP address of its subject
  // alternative names; without any, its common name.
  std::string name;
  std::string tenant = "default";
  Role role = Role::kUse;
};

struct AuthConfig {
  std::vector<AuthToken> tokens;
  // Absolute. A YAML list of more of them, which is read anew when it changes; empty: none.
  std::string tokens_file;
  std::vector<AuthCertificate> certificates;
  // Else every caller is tenant "default" and may operate.
  bool required() const { return !tokens.empty() || !tokens_file.empty() || !certificates.empty(); }
};

struct LimitsConfig {
  int64_t max_queued_jobs = 10000;
  // Of one tenant; 0: no limit of its own.
  int64_t max_tenant_queued_jobs = 0;
  int64_t max_tenant_running_jobs = 0;
  int64_t max_tenant_requests_per_second = 0;
  // Open at a time, of all clients and of one IP address.
  int max_connections = 4096;
  int max_address_connections = 2048;
  int64_t max_upload_bytes = int64_t{256} << 20;
  // An upload whose client sends nothing for so long is ended.
  absl::Duration upload_idle_timeout = absl::Seconds(60);
  int64_t max_prompt_bytes = 8192;
  // Of one image or video frame, and of all frames of an uploaded video together.
  int64_t max_image_pixels = 33'000'000;
  int64_t max_video_pixels = 2'000'000'000;
  absl::Duration run_timeout = absl::Hours(6);
  // An attempt that makes no progress for so long is stuck: its worker is killed. `load_timeout`
  // holds while a model is loaded; `no_progress` until three steps of its stage have finished; then
  // `no_progress_steps` usual steps, and not less than `min_no_progress`.
  absl::Duration load_timeout = absl::Minutes(10);
  absl::Duration no_progress = absl::Minutes(10);
  int no_progress_steps = 5;
  absl::Duration min_no_progress = absl::Minutes(2);
  // A cancelled attempt that has not ended within this time costs its worker.
  absl::Duration cancel_grace = absl::Seconds(10);
  // With less room on the data folder's disk nothing is submitted, uploaded or started.
  int64_t min_free_disk_bytes = int64_t{256} << 20;
  // What videos and uploads may take, all tenants' together and one tenant's; 0: no limit.
  int64_t max_disk_bytes = 0;
  int64_t max_tenant_disk_bytes = 0;
};

struct LinkConfig {
  absl::Duration heartbeat_interval = absl::Seconds(2);
  absl::Duration lease = absl::Seconds(10);
  // How long a running attempt waits for its worker to come back, after the frontend restarted or
  // the link broke.
  absl::Duration reattach_grace = absl::Seconds(15);
};

struct RetryConfig {
  // Attempts per job that end without a result through a fault (interruptions by us are free).
  int max_attempts = 4;
  // Attempts that ended their worker; at so many the job is QUARANTINED.
  int max_crashes = 2;
  // The pause before the next attempt doubles from min to max, with full jitter.
  absl::Duration min_backoff = absl::Seconds(1);
  absl::Duration max_backoff = absl::Seconds(60);
};

struct RetentionConfig {
  // Artifacts of jobs that ended longer ago are removed; the jobs stay.
  absl::Duration results = absl::Hours(720);
  // Ended jobs are forgotten after this time, with what is left of them.
  absl::Duration jobs = absl::Hours(24 * 90);
  // Uploaded assets that no job uses are removed after this time.
  absl::Duration assets = absl::Hours(24);
};

struct SupervisorConfig {
  absl::Duration restart_min = absl::Seconds(1);
  // At most link.reattach_grace: what waits for a restart waits no longer.
  absl::Duration restart_max = absl::Seconds(10);
  // A child that ran so long starts over at restart_min.
  absl::Duration healthy_after = absl::Seconds(60);
  // From SIGTERM to SIGKILL; stop_times.h shares it out.
  absl::Duration stop_deadline = absl::Seconds(30);
};

struct WorkerConfig {
  std::string name = "";       // unique, [a-z0-9][a-z0-9._-]{0,127}
  std::string device = "cpu";  // "cpu" or "cuda:N"
  int threads = 0;             // on the CPU; 0: its share of the cores, see worker_threads.h
  // Bytes its jobs may take; 0: all there is.
  int64_t max_device_memory = 0;
  int64_t max_host_memory = 0;
};

struct ModelConfig {
  std::string name;
  std::string folder;  // absolute
  // "auto" (float32 on the CPU, bfloat16 on a GPU), "float32", "bfloat16" or "float16".
  engine::ComputeDTypes dtype;
  // diffusers' variant of the weight files: "", "fp16", "bf16", ...
  std::string variant;
  // Absolute paths of GGUF or single-file safetensors in place of the folder's components.
  engine::OriginalFiles original_files;
  // What requests go by that bring no plan of their own; theirs is merged over it.
  engine::Plan plan;
  // Whether plan.mode and requests may choose lossy options; the plan here may in any case.
  bool allow_lossy = false;
  // Whether requests may bring a plan of their own.
  bool allow_plan_override = true;
  // Workers load it when they start.
  bool preload = false;
  // What requests that leave a field absent get here, over the family's own defaults.
  engine::Request defaults;
  // file:line:column of its entry, for messages.
  std::string source;
};

struct Config {
  // The file it came from, absolute; empty for the embedded defaults.
  std::string file;
  // Absolute. Everything the server writes lies here; one server per folder.
  std::string data_dir;
  ListenConfig listen;
  MetricsConfig metrics;
  LogConfig log;
  AuthConfig auth;
  LimitsConfig limits;
  LinkConfig link;
  RetryConfig retry;
  RetentionConfig retention;
  SupervisorConfig supervisor;
  // Never empty once loaded: "workers: auto" is one per GPU, or one on the CPU.
  std::vector<WorkerConfig> workers;
  std::vector<ModelConfig> models;
};

// INVALID_ARGUMENT lists everything that is wrong, one "file:line:column: message" per line.
// NOT_FOUND: no such file.
absl::StatusOr<Config> LoadConfig(const std::string& file);
// The tokens of a file such as auth.tokens_file names: `tokens:`, as under auth. INVALID_ARGUMENT:
// as ParseConfig; the file cannot be read.
absl::StatusOr<std::vector<AuthToken>> LoadTokens(const std::string& file);
// INVALID_ARGUMENT: more than two tokens of one tenant and role, which is what a rotation needs.
absl::Status CheckTokens(const std::vector<AuthToken>& tokens);

// `file` is only the name that messages and relative paths go by.
absl::StatusOr<Config> ParseConfig(const std::string& yaml, const std::string& file);

// Every key the parser knows, as "listen.address" or "models[].name".
std::vector<std::string> KnownKeys();

// What is said about the files of the model in `folder` and of its original files, as clients may
// see it: without the server's paths.
std::string WithoutPaths(const std::string& folder, const engine::OriginalFiles& original_files,
                         const std::string& message);

// Whether `name` is [a-z0-9][a-z0-9._-]{0,127}.
bool IsValidName(const std::string& name);

}  // namespace kino::config
