#include "server/config/config.h"

#include <glob.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "engine/describe/families.h"
#include "server/command_line/address.h"
#include "server/config/plan_reader.h"
#include "server/config/yaml_reader.h"

namespace kino::config {
namespace {

constexpr char kNameRule[] = "a name of [a-z0-9][a-z0-9._-]{0,127}";

std::string Home() {
  const char* home = std::getenv("HOME");
  return home != nullptr && *home != 0 ? home : "/tmp";
}

std::string DefaultDataDir() {
  const char* xdg = std::getenv("XDG_DATA_HOME");
  if (xdg != nullptr && *xdg == '/') return absl::StrCat(xdg, "/kino");
  return absl::StrCat(Home(), "/.local/share/kino");
}

// Relative to the file that names it; "~/" is the home folder.
std::string ResolvePath(const std::string& file, const std::string& path) {
  namespace fs = std::filesystem;
  fs::path result =
      absl::StartsWith(path, "~/") ? fs::path(Home()) / path.substr(2) : fs::path(path);
  if (result.is_relative()) result = fs::absolute(file).parent_path() / result;
  std::string text = result.lexically_normal().string();
  if (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

bool IsHostPort(const std::string& address, std::string& host) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return false;
  host = address.substr(0, colon);
  const std::string digits = address.substr(colon + 1);
  int port = -1;
  return !digits.empty() && std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(digits, &port) && port >= 0 && port <= 65535;
}

// Off loopback what is sent has to be protected, or `allow_plaintext` set. `instead` tells how.
void ReadAddress(MapReader& map, bool is_protected, const std::string& instead,
                 bool& allow_plaintext, std::string& out) {
  map.Bool("allow_plaintext", allow_plaintext);
  std::string host;
  const YAML::Node node = map.Take("address");
  std::string address = out;
  if (!map.String("address", address, "host:port with a port from 0 to 65535",
                  [&](const std::string& text) { return IsHostPort(text, host); })) {
    return;
  }
  if (!is_protected && !allow_plaintext && !command_line::IsLoopbackHost(host)) {
    map.ErrorAt(node, absl::StrCat("'address': '", address,
                                   "' is not a loopback address (127.0.0.0/8, [::1], localhost), "
                                   "and what is sent there can be read by others. ",
                                   instead));
    return;
  }
  out = address;
}

void ReadPath(MapReader& map, const std::string& key, std::string& out) {
  if (map.String(key, out) && !out.empty()) out = ResolvePath(map.file(), out);
}

void ReadTls(MapReader& map, TlsConfig& tls) {
  ReadPath(map, "certificate", tls.certificate);
  ReadPath(map, "key", tls.key);
  ReadPath(map, "client_ca", tls.client_ca);
  map.Bool("require_client_certificate", tls.require_client_certificate);
  if (tls.certificate.empty() != tls.key.empty())
    map.Error("expected both of 'certificate' and 'key', or neither");
  if (!tls.client_ca.empty() && !tls.is_on())
    map.Error("'client_ca' needs 'certificate' and 'key'");
  if (tls.require_client_certificate && tls.client_ca.empty())
    map.Error("'require_client_certificate' needs 'client_ca'");
}

void ReadListen(MapReader& map, ListenConfig& listen) {
  map.Map("tls", [&](MapReader& m) { ReadTls(m, listen.tls); });
  ReadAddress(map, listen.tls.is_on(),
              "Set listen.tls; or listen.allow_plaintext, where a proxy speaks TLS",
              listen.allow_plaintext, listen.address);
}

bool IsDevice(const std::string& device) {
  if (device == "cpu") return true;
  int index = -1;
  return absl::StartsWith(device, "cuda:") && absl::SimpleAtoi(device.substr(5), &index) &&
         index >= 0 && index < 64 && device == absl::StrCat("cuda:", index);
}

bool IsSha256(const std::string& text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
         });
}

// GPUs that a process started by us would see. A build without CUDA can use none.
int VisibleGpus() {
#ifdef KINO_WITH_CUDA
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible != nullptr) {
    const std::vector<std::string> parts = absl::StrSplit(visible, ',', absl::SkipWhitespace());
    return static_cast<int>(parts.size());
  }
  int count = 0;
  std::error_code error;
  while (std::filesystem::exists(absl::StrCat("/dev/nvidia", count), error)) ++count;
  return count;
#else
  return 0;
#endif
}

// The keys are GenerateRequest's. What the numbers may be is the family's to say, and is checked
// with every request.
void ReadDefaults(MapReader& map, engine::Request& defaults) {
  map.OptionalInteger("height", defaults.height);
  map.OptionalInteger("width", defaults.width);
  map.OptionalInteger("num_frames", defaults.num_frames);
  map.OptionalInteger("num_inference_steps", defaults.num_inference_steps);
  map.OptionalNumber("guidance_scale", defaults.guidance_scale);
  map.OptionalNumber("fps", defaults.fps);
  std::string negative_prompt;
  if (map.String("negative_prompt", negative_prompt)) defaults.negative_prompt = negative_prompt;
  for (const engine::FamilyDescriber& family : engine::FamilyDescribers()) {
    map.Map(family.family, [&](MapReader& own) {
      for (const engine::KnobInfo& knob : family.knobs) {
        std::optional<double> number;
        std::optional<int> integer;
        std::vector<double> numbers;
        if (knob.type == engine::KnobType::kNumber && own.OptionalNumber(knob.name, number)) {
          defaults.knobs.values.emplace(knob.name, *number);
        } else if (knob.type == engine::KnobType::kInteger &&
                   own.OptionalInteger(knob.name, integer)) {
          defaults.knobs.values.emplace(knob.name, int64_t{*integer});
        } else if (knob.type == engine::KnobType::kNumbers && own.Numbers(knob.name, numbers)) {
          defaults.knobs.values.emplace(knob.name, std::move(numbers));
        } else {
          continue;
        }
        defaults.knobs.family = family.family;
      }
    });
  }
}

void ReadModel(MapReader& map, Config& config) {
  ModelConfig model;
  model.source = map.where();
  const bool has_name = map.String("name", model.name, kNameRule, IsValidName);
  std::string folder;
  const bool has_folder = map.String("folder", folder, "the path of a model's folder",
                                     [](const std::string& text) { return !text.empty(); });
  std::string dtype;
  if (map.String("dtype", dtype, engine::kComputeDTypesForm,
                 [](const std::string& text) { return engine::ComputeDTypes::Parse(text).ok(); }))
    model.dtype = *engine::ComputeDTypes::Parse(dtype);
  map.String("variant", model.variant, "a diffusers variant of [A-Za-z0-9_-]",
             [](const std::string& text) {
               return text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
                        return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' ||
                               c == '-';
                      });
             });
  engine::OriginalFiles originals;
  for (const char* const component : {"transformer", "text_encoder", "text_encoder_2"}) {
    map.String(component, originals[component], "the path of a .gguf or .safetensors file",
               [](const std::string& text) {
                 return text.empty() || absl::EndsWith(text, ".gguf") ||
                        absl::EndsWith(text, ".safetensors");
               });
  }
  ReadPlan(map, model.plan);
  map.Bool("allow_lossy", model.allow_lossy);
  map.Bool("allow_plan_override", model.allow_plan_override);
  map.Bool("preload", model.preload);
  map.Map("defaults", [&model](MapReader& defaults) { ReadDefaults(defaults, model.defaults); });
  if (map.is_listing()) return;
  if (!has_name && !map.Has("name")) map.Error("a model needs 'name'");
  if (!has_folder && !map.Has("folder")) map.Error("a model needs 'folder'");
  if (!has_name || !has_folder) return;
  for (const ModelConfig& other : config.models) {
    if (other.name == model.name) {
      map.Error(absl::StrCat("model '", model.name, "' was already configured at ", other.source));
      return;
    }
  }
  model.folder = ResolvePath(map.file(), folder);
  for (const auto& [component, path] : originals) {
    if (!path.empty()) model.original_files[component] = ResolvePath(map.file(), path);
  }
  config.models.push_back(std::move(model));
}

void ReadWorker(MapReader& map, Config& config) {
  WorkerConfig worker;
  int count = 1;
  const bool has_name = map.String("name", worker.name, kNameRule, IsValidName);
  map.String("device", worker.device, "'cpu' or 'cuda:N'", IsDevice);
  map.Integer("threads", worker.threads, 0, 1024);
  map.Integer("count", count, 1, 64);
  map.Bytes("max_device_memory", worker.max_device_memory, 1, std::numeric_limits<int64_t>::max());
  map.Bytes("max_host_memory", worker.max_host_memory, 1, std::numeric_limits<int64_t>::max());
  if (map.is_listing()) return;
  std::string stem = has_name ? worker.name : absl::StrReplaceAll(worker.device, {{":", "-"}});
  for (int i = 0; i < count; ++i) {
    WorkerConfig one = worker;
    const auto taken = [&](const std::string& name) {
      return std::any_of(config.workers.begin(), config.workers.end(),
                         [&](const WorkerConfig& other) { return other.name == name; });
    };
    if (has_name) {
      one.name = count == 1 ? stem : absl::StrCat(stem, "-", i);
      if (taken(one.name)) {
        map.Error(absl::StrCat("worker '", one.name, "' is configured twice"));
        return;
      }
    } else {
      one.name = stem;
      for (int n = 1; taken(one.name); ++n) one.name = absl::StrCat(stem, "-", n);
    }
    config.workers.push_back(std::move(one));
  }
}

void AddAutomaticWorkers(Config& config) {
  const int gpus = VisibleGpus();
  for (int i = 0; i < gpus; ++i) {
    config.workers.push_back(
        {.name = absl::StrCat("cuda-", i), .device = absl::StrCat("cuda:", i)});
  }
  if (gpus == 0) config.workers.push_back({.name = "cpu"});
}

void ReadWorkers(MapReader& map, Config& config) {
  const YAML::Node node = map.Take("workers");
  if (node.IsDefined() && node.IsScalar()) {
    if (node.Scalar() != "auto") {
      map.ErrorAt(node, absl::StrCat("'workers': expected 'auto' or a list of workers, got '",
                                     node.Scalar(), "'"));
    }
  } else {
    map.List("workers", [&](MapReader& entry) { ReadWorker(entry, config); });
    if (node.IsDefined() && node.IsSequence() && node.size() == 0) {
      map.ErrorAt(node, "'workers': expected 'auto' or at least one worker, got an empty list");
    }
  }
  if (config.workers.empty()) AddAutomaticWorkers(config);
}

void ReadLimits(MapReader& map, LimitsConfig& limits) {
  map.Integer("max_queued_jobs", limits.max_queued_jobs, 1, 10'000'000);
  map.Integer("max_queued_jobs_per_tenant", limits.max_tenant_queued_jobs, 0, 10'000'000);
  map.Integer("max_running_jobs_per_tenant", limits.max_tenant_running_jobs, 0, 10'000'000);
  map.Integer("max_requests_per_second_per_tenant", limits.max_tenant_requests_per_second, 0,
              1'000'000);
  map.Integer("max_connections", limits.max_connections, 1, 1'000'000);
  map.Integer("max_connections_per_address", limits.max_address_connections, 1, 1'000'000);
  map.Bytes("max_upload_size", limits.max_upload_bytes, 1024, int64_t{64} << 30);
  map.Duration("upload_idle_timeout", limits.upload_idle_timeout, absl::Milliseconds(100),
               absl::Hours(24));
  map.Bytes("max_prompt_size", limits.max_prompt_bytes, 1, 8192);
  map.Integer("max_image_pixels", limits.max_image_pixels, 1, 1'000'000'000);
  map.Integer("max_video_pixels", limits.max_video_pixels, 1, 1'000'000'000'000);
  map.Duration("run_timeout", limits.run_timeout, absl::Seconds(1), absl::Hours(24 * 30));
  map.Duration("load_timeout", limits.load_timeout, absl::Milliseconds(100), absl::Hours(24));
  map.Duration("no_progress", limits.no_progress, absl::Milliseconds(100), absl::Hours(24));
  map.Duration("min_no_progress", limits.min_no_progress, absl::Milliseconds(100), absl::Hours(24));
  map.Integer("no_progress_steps", limits.no_progress_steps, 2, 1000);
  map.Duration("cancel_grace", limits.cancel_grace, absl::Milliseconds(100), absl::Minutes(10));
  map.Bytes("max_disk", limits.max_disk_bytes, 0, std::numeric_limits<int64_t>::max());
  map.Bytes("max_disk_per_tenant", limits.max_tenant_disk_bytes, 0,
            std::numeric_limits<int64_t>::max());
  map.Bytes("min_free_disk", limits.min_free_disk_bytes, 0, std::numeric_limits<int64_t>::max());
}

void ReadLink(MapReader& map, LinkConfig& link) {
  map.Duration("heartbeat_interval", link.heartbeat_interval, absl::Milliseconds(20),
               absl::Minutes(1));
  map.Duration("lease", link.lease, absl::Milliseconds(60), absl::Minutes(10));
  map.Duration("reattach_grace", link.reattach_grace, absl::Milliseconds(60), absl::Minutes(10));
  if (link.lease < 3 * link.heartbeat_interval) {
    map.Error(absl::StrCat("'link.lease': expected at least three heartbeat intervals (",
                           absl::FormatDuration(3 * link.heartbeat_interval), "), got ",
                           absl::FormatDuration(link.lease)));
  }
}

void ReadRetry(MapReader& map, RetryConfig& retry) {
  map.Integer("max_attempts", retry.max_attempts, 1, 100);
  map.Integer("max_crashes", retry.max_crashes, 1, 100);
  map.Duration("min_backoff", retry.min_backoff, absl::ZeroDuration(), absl::Hours(1));
  // The store takes a pause beyond the longest for one that a set-back clock left behind, and ends
  // it.
  if (!map.Has("max_backoff")) retry.max_backoff = std::max(retry.max_backoff, retry.min_backoff);
  map.Duration("max_backoff", retry.max_backoff, retry.min_backoff, absl::Hours(24));
}

void ReadSupervisor(MapReader& map, const LinkConfig& link, SupervisorConfig& supervisor) {
  // What is not given follows what is.
  supervisor.restart_max = std::min(supervisor.restart_max, link.reattach_grace);
  supervisor.restart_min = std::min(supervisor.restart_min, supervisor.restart_max);
  map.Duration("restart_min", supervisor.restart_min, absl::Milliseconds(10), absl::Hours(1));
  if (!map.Has("restart_max")) {
    supervisor.restart_max = std::max(supervisor.restart_max, supervisor.restart_min);
  }
  map.Duration("restart_max", supervisor.restart_max, supervisor.restart_min, absl::Hours(1));
  map.Duration("healthy_after", supervisor.healthy_after, absl::Milliseconds(10), absl::Hours(24));
  map.Duration("stop_deadline", supervisor.stop_deadline, absl::Milliseconds(100), absl::Hours(1));
  const std::string key = map.Has("restart_max") ? "restart_max" : "restart_min";
  if (!map.is_listing() && supervisor.restart_max > link.reattach_grace) {
    map.ErrorAt(map.Take(key),
                absl::StrCat("'supervisor.", key, "': expected at most link.reattach_grace (",
                             absl::FormatDuration(link.reattach_grace),
                             "), since running attempts and queued jobs wait no longer for what is "
                             "restarted, got ",
                             absl::FormatDuration(supervisor.restart_max)));
  }
}

void ReadRole(MapReader& entry, std::string& tenant, Role& role) {
  entry.String("tenant", tenant, kNameRule, IsValidName);
  std::string name = "use";
  entry.Choice("role", name, {"use", "operate"});
  role = name == "operate" ? Role::kOperate : Role::kUse;
}

void ReadTokens(MapReader& map, std::vector<AuthToken>& tokens) {
  map.List("tokens", [&](MapReader& entry) {
    AuthToken token;
    ReadRole(entry, token.tenant, token.role);
    const bool has_sha =
        entry.String("sha256", token.sha256, "64 lower-case hexadecimal digits", IsSha256);
    if (entry.is_listing()) return;
    if (has_sha) tokens.push_back(std::move(token));
    if (!entry.Has("sha256")) entry.Error("a token needs 'sha256'");
  });
  const absl::Status checked = CheckTokens(tokens);
  if (!checked.ok()) map.ErrorAt(map.Take("tokens"), std::string(checked.message()));
}

void ReadAuth(MapReader& map, const TlsConfig& tls, AuthConfig& auth) {
  ReadTokens(map, auth.tokens);
  ReadPath(map, "tokens_file", auth.tokens_file);
  map.List("certificates", [&](MapReader& entry) {
    AuthCertificate certificate;
    ReadRole(entry, certificate.tenant, certificate.role);
    entry.String("name", certificate.name);
    if (entry.is_listing()) return;
    if (certificate.name.empty()) return entry.Error("a certificate needs 'name'");
    if (tls.client_ca.empty()) entry.Error("clients' certificates need listen.tls.client_ca");
    auth.certificates.push_back(std::move(certificate));
  });
}

void ReadRoot(MapReader& map, Config& config, std::vector<std::string>& includes) {
  std::string data_dir = DefaultDataDir();
  map.String("data_dir", data_dir, "the path of a folder",
             [](const std::string& text) { return !text.empty(); });
  config.data_dir = ResolvePath(map.file(), data_dir);
  map.Map("listen", [&](MapReader& m) { ReadListen(m, config.listen); });
  map.Map("metrics", [&](MapReader& m) {
    ReadAddress(m, /*is_protected=*/false,
                "Set metrics.allow_plaintext where only your own Prometheus reaches it",
                config.metrics.allow_plaintext, config.metrics.address);
  });
  map.Map("log", [&](MapReader& m) {
    m.Choice("level", config.log.level, {"debug", "info", "warning", "error"});
    m.Choice("format", config.log.format, {"plain", "json"});
  });
  map.Map("auth", [&](MapReader& m) { ReadAuth(m, config.listen.tls, config.auth); });
  map.Map("limits", [&](MapReader& m) { ReadLimits(m, config.limits); });
  map.Map("link", [&](MapReader& m) { ReadLink(m, config.link); });
  map.Map("retry", [&](MapReader& m) { ReadRetry(m, config.retry); });
  map.Map("retention", [&](MapReader& m) {
    m.Duration("results", config.retention.results, absl::Seconds(1), absl::Hours(24 * 3650));
    m.Duration("jobs", config.retention.jobs, absl::Seconds(1), absl::Hours(24 * 3650));
    m.Duration("assets", config.retention.assets, absl::Seconds(1), absl::Hours(24 * 3650));
  });
  map.Map("supervisor", [&](MapReader& m) { ReadSupervisor(m, config.link, config.supervisor); });
  ReadWorkers(map, config);
  map.List("models", [&](MapReader& entry) { ReadModel(entry, config); });
  map.Strings("include", includes);
}

// Calls `read` with the map that a whole file is.
void ReadFile(const std::string& file, Findings& findings,
              const std::function<void(MapReader&)>& read) {
  YAML::Node root;
  try {
    root = YAML::LoadFile(file);
  } catch (const YAML::BadFile&) {
    findings.errors.push_back(absl::StrCat(file, ": cannot be read"));
    return;
  } catch (const YAML::Exception& e) {
    findings.errors.push_back(
        absl::StrCat(file, ":", e.mark.line + 1, ":", e.mark.column + 1, ": ", e.msg));
    return;
  }
  MapReader map(file, "", root, findings);
  read(map);
}

void ReadIncludes(const std::string& file, const std::vector<std::string>& includes, Config& config,
                  Findings& findings) {
  for (const std::string& include : includes) {
    const std::string pattern = ResolvePath(file, include);
    glob_t matches{};
    const int result = glob(pattern.c_str(), GLOB_ERR, nullptr, &matches);
    const bool is_pattern = include.find_first_of("*?[") != std::string::npos;
    if (result == GLOB_NOMATCH && !is_pattern) {
      findings.errors.push_back(absl::StrCat(file, ": 'include': no file '", include, "'"));
    } else if (result != 0 && result != GLOB_NOMATCH) {
      findings.errors.push_back(absl::StrCat(file, ": 'include': cannot read '", include, "'"));
    }
    std::vector<std::string> files;
    for (size_t i = 0; result == 0 && i < matches.gl_pathc; ++i) {
      files.emplace_back(matches.gl_pathv[i]);
    }
    globfree(&matches);
    // Such a file holds `models` and nothing else.
    for (const std::string& one : files) {
      ReadFile(one, findings, [&config](MapReader& map) {
        map.List("models", [&](MapReader& entry) { ReadModel(entry, config); });
      });
    }
  }
}

}  // namespace

std::string WithoutPaths(const std::string& folder, const engine::OriginalFiles& original_files,
                         const std::string& message) {
  std::string out = absl::StrReplaceAll(message, {{folder + "/", ""}, {folder, "."}});
  for (const auto& [component, path] : original_files) {
    const std::filesystem::path file(path);
    out = absl::StrReplaceAll(out, {{file.string(), file.filename().string()}});
  }
  return out;
}

bool IsValidName(const std::string& name) {
  if (name.empty() || name.size() > 128) return false;
  const auto is_alnum = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return is_alnum(name[0]) && std::all_of(name.begin(), name.end(), [&](char c) {
           return is_alnum(c) || c == '.' || c == '_' || c == '-';
         });
}

absl::StatusOr<Config> ParseConfig(const std::string& yaml, const std::string& file) {
  YAML::Node root;
  Findings findings;
  Config config;
  config.file = std::filesystem::absolute(file).lexically_normal().string();
  // yaml-cpp throws; nothing of it leaves this function.
  try {
    root = YAML::Load(yaml);
    std::vector<std::string> includes;
    {
      MapReader map(file, "", root, findings);
      ReadRoot(map, config, includes);
    }
    ReadIncludes(file, includes, config, findings);
  } catch (const YAML::Exception& e) {
    findings.errors.push_back(
        absl::StrCat(file, ":", e.mark.line + 1, ":", e.mark.column + 1, ": ", e.msg));
  }
  if (!findings.errors.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(findings.errors, "\n"));
  }
  return config;
}

absl::StatusOr<Config> LoadConfig(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    return absl::NotFoundError(absl::StrCat("configuration '", file, "' cannot be read"));
  }
  std::ostringstream text;
  text << in.rdbuf();
  if (in.bad()) {
    return absl::NotFoundError(absl::StrCat("configuration '", file, "' cannot be read"));
  }
  return ParseConfig(text.str(), file);
}

absl::Status CheckTokens(const std::vector<AuthToken>& tokens) {
  constexpr int kLive = 2;
  std::map<std::pair<std::string, Role>, int> live;
  for (const AuthToken& token : tokens) {
    if (++live[{token.tenant, token.role}] > kLive) {
      return absl::InvalidArgumentError(absl::StrCat("tenant '", token.tenant, "' has more than ",
                                                     kLive, " tokens of one role; ",
                                                     "remove those that nobody uses any more"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<AuthToken>> LoadTokens(const std::string& file) {
  std::vector<AuthToken> tokens;
  Findings findings;
  ReadFile(file, findings, [&tokens](MapReader& map) { ReadTokens(map, tokens); });
  if (!findings.errors.empty())
    return absl::InvalidArgumentError(absl::StrJoin(findings.errors, "\n"));
  return tokens;
}

std::vector<std::string> KnownKeys() {
  Findings findings;
  Config config;
  std::vector<std::string> includes;
  {
    MapReader map("", "", YAML::Node(YAML::NodeType::Undefined), findings);
    ReadRoot(map, config, includes);
  }
  return {findings.keys.begin(), findings.keys.end()};
}

}  // namespace kino::config
