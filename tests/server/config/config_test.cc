#include "server/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "server/config/effective_plan.h"
#include "server/config/stop_times.h"
#include "server/config/worker_threads.h"
#include "tests/support/temp_dir.h"

namespace kino::config {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Example() { return std::string(KINO_SOURCE_DIR) + "/config/kino.yaml"; }

void CollectKeys(const YAML::Node& node, const std::string& path, std::set<std::string>& keys) {
  for (const auto& entry : node) {
    const std::string key = path.empty() ? entry.first.Scalar() : path + "." + entry.first.Scalar();
    keys.insert(key);
    if (entry.second.IsMap()) CollectKeys(entry.second, key, keys);
  }
}

const std::string kSha(64, 'a');

TEST(ConfigTest, ExampleHoldsEveryKeyOutsideOfListsAndDescribesTheOthers) {
  std::set<std::string> given;
  CollectKeys(YAML::LoadFile(Example()), "", given);
  std::ifstream file(Example());
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  for (const std::string& key : KnownKeys()) {
    const size_t list = key.find("[].");
    if (list == std::string::npos) {
      EXPECT_EQ(given.count(key), 1u) << key << " is missing in config/kino.yaml";
    } else {
      // A key of a list's entries stands in a comment, as "#   - name:" or "#     name:".
      const std::string last = key.substr(key.rfind('.') + 1);
      EXPECT_TRUE(std::regex_search(text, std::regex("#( +- | +)" + last + ":")))
          << key << " is not described in config/kino.yaml";
    }
  }
}

TEST(ConfigTest, ExampleHoldsTheDefaults) {
  const absl::StatusOr<Config> example = LoadConfig(Example());
  ASSERT_TRUE(example.ok()) << example.status();
  const absl::StatusOr<Config> empty = ParseConfig("", "empty.yaml");
  ASSERT_TRUE(empty.ok()) << empty.status();
  // XDG_DATA_HOME decides where the default lies; the example spells the one without it.
  if (std::getenv("XDG_DATA_HOME") == nullptr) {
    EXPECT_EQ(example->data_dir, empty->data_dir);
  }
  EXPECT_EQ(example->listen.address, empty->listen.address);
  EXPECT_EQ(example->listen.allow_plaintext, empty->listen.allow_plaintext);
  EXPECT_EQ(example->listen.tls.is_on(), empty->listen.tls.is_on());
  EXPECT_EQ(example->listen.tls.require_client_certificate,
            empty->listen.tls.require_client_certificate);
  EXPECT_EQ(example->metrics.address, empty->metrics.address);
  EXPECT_EQ(example->metrics.allow_plaintext, empty->metrics.allow_plaintext);
  EXPECT_EQ(example->log.level, empty->log.level);
  EXPECT_EQ(example->log.format, empty->log.format);
  EXPECT_EQ(example->auth.required(), empty->auth.required());
  const LimitsConfig& limits = example->limits;
  EXPECT_EQ(limits.max_queued_jobs, empty->limits.max_queued_jobs);
  EXPECT_EQ(limits.max_tenant_queued_jobs, empty->limits.max_tenant_queued_jobs);
  EXPECT_EQ(limits.max_tenant_running_jobs, empty->limits.max_tenant_running_jobs);
  EXPECT_EQ(limits.max_tenant_requests_per_second, empty->limits.max_tenant_requests_per_second);
  EXPECT_EQ(limits.max_upload_bytes, empty->limits.max_upload_bytes);
  EXPECT_EQ(limits.upload_idle_timeout, empty->limits.upload_idle_timeout);
  EXPECT_EQ(limits.max_prompt_bytes, empty->limits.max_prompt_bytes);
  EXPECT_EQ(limits.max_image_pixels, empty->limits.max_image_pixels);
  EXPECT_EQ(limits.max_video_pixels, empty->limits.max_video_pixels);
  EXPECT_EQ(limits.run_timeout, empty->limits.run_timeout);
  EXPECT_EQ(limits.no_progress, empty->limits.no_progress);
  EXPECT_EQ(limits.cancel_grace, empty->limits.cancel_grace);
  EXPECT_EQ(example->link.heartbeat_interval, empty->link.heartbeat_interval);
  EXPECT_EQ(example->link.lease, empty->link.lease);
  EXPECT_EQ(example->link.reattach_grace, empty->link.reattach_grace);
  EXPECT_EQ(example->retry.max_attempts, empty->retry.max_attempts);
  EXPECT_EQ(example->retry.max_crashes, empty->retry.max_crashes);
  EXPECT_EQ(example->retry.min_backoff, empty->retry.min_backoff);
  EXPECT_EQ(example->retry.max_backoff, empty->retry.max_backoff);
  EXPECT_EQ(example->retention.results, empty->retention.results);
  EXPECT_EQ(example->retention.assets, empty->retention.assets);
  EXPECT_EQ(example->supervisor.restart_min, empty->supervisor.restart_min);
  EXPECT_EQ(example->supervisor.restart_max, empty->supervisor.restart_max);
  EXPECT_EQ(example->supervisor.healthy_after, empty->supervisor.healthy_after);
  EXPECT_EQ(example->supervisor.stop_deadline, empty->supervisor.stop_deadline);
  EXPECT_EQ(example->workers.size(), empty->workers.size());
  EXPECT_TRUE(example->models.empty());
}

struct Wrong {
  std::string yaml;
  std::string where;
  std::string what;
};

class WrongConfigTest : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongConfigTest, IsRefusedWithItsPlace) {
  const absl::StatusOr<Config> config = ParseConfig(GetParam().yaml, "k.yaml");
  ASSERT_FALSE(config.ok()) << GetParam().yaml;
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(config.status().message()),
              AllOf(HasSubstr("k.yaml:" + GetParam().where), HasSubstr(GetParam().what)));
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongConfigTest,
    ::testing::Values(
        Wrong{"nonsense: 1\n", "1:1", "unknown key 'nonsense'"},
        Wrong{"listen:\n  adress: x\n", "2:3", "unknown key 'listen.adress'; known here: address"},
        Wrong{"log: {level: info, level: debug}\n", "1:20", "given twice"},
        Wrong{"log: loud\n", "1:6", "expected a map"},
        Wrong{"log: {level: loud}\n", "1:14",
              "expected one of debug, info, warning, error, got 'loud'"},
        Wrong{"log: {level: [info]}\n", "1:14", "got a list"},
        Wrong{"- a\n", "1:1", "expected a map of keys, got a list"}, Wrong{"a: [\n", "2:1", ""},
        Wrong{"listen: {address: '0.0.0.0:1'}\n", "1:19", "not a loopback address"},
        Wrong{"metrics: {address: 'example.org:1'}\n", "1:20", "not a loopback address"},
        Wrong{"listen: {address: '127.0.0.1:65536'}\n", "1:19", "port from 0 to 65535"},
        Wrong{"listen: {address: '127.0.0.1'}\n", "1:19", "host:port"},
        Wrong{"limits: {run_timeout: 5}\n", "1:23", "a time such as"},
        Wrong{"limits: {run_timeout: -5s}\n", "1:23", "from 1s"},
        Wrong{"limits: {upload_idle_timeout: 0s}\n", "1:31", "from 100ms"},
        Wrong{"limits: {upload_idle_timeout: 25h}\n", "1:31", "24h"},
        Wrong{"limits: {max_upload_size: 1TB}\n", "1:27", "a size such as"},
        Wrong{"limits: {max_upload_size: 99999999999GiB}\n", "1:27", "a size such as"},
        Wrong{"limits: {max_prompt_size: 9KiB}\n", "1:27", "to 8192 bytes"},
        Wrong{"limits: {max_queued_jobs: many}\n", "1:27", "a whole number from 1"},
        Wrong{"link: {lease: 1s}\n", "1:7", "at least three heartbeat intervals (6s)"},
        Wrong{"retry: {min_backoff: 5s, max_backoff: 1s}\n", "1:39", "from 5s"},
        Wrong{"supervisor: {restart_max: 60s}\n", "1:27", "at most link.reattach_grace (15s)"},
        Wrong{"supervisor: {restart_min: 16s}\n", "1:27", "'supervisor.restart_min'"},
        Wrong{"link: {reattach_grace: 5s}\nsupervisor: {restart_max: 6s}\n", "2:27", "got 6s"},
        Wrong{"supervisor: {restart_min: 5s, restart_max: 1s}\n", "1:44", "from 5s"},
        Wrong{"auth: {tokens: [{tenant: a}]}\n", "1:17", "a token needs 'sha256'"},
        Wrong{"auth: {tokens: [{sha256: XYZ}]}\n", "1:26", "64 lower-case hexadecimal digits"},
        Wrong{"auth: {tokens: [{sha256: '" + kSha + "', role: own}]}\n", "1:100",
              "expected one of use, operate, got 'own'"},
        Wrong{"auth: {tokens: [{sha256: '" + kSha + "'}, {sha256: '" + kSha + "'}, {sha256: '" +
                  kSha + "'}]}\n",
              "1:16", "tenant 'default' has more than 2 tokens of one role"},
        Wrong{"auth: {certificates: [{tenant: a}]}\n", "1:23", "a certificate needs 'name'"},
        Wrong{"auth: {certificates: [{name: a}]}\n", "1:23", "need listen.tls.client_ca"},
        Wrong{"auth: {token_file: x}\n", "1:8", "unknown key 'auth.token_file'"},
        Wrong{"listen: {tls: {certificate: a}}\n", "1:15",
              "expected both of 'certificate' and 'key'"},
        Wrong{"listen: {tls: {client_ca: a}}\n", "1:15", "'client_ca' needs 'certificate'"},
        Wrong{"listen: {tls: {certificate: a, key: b, require_client_certificate: true}}\n", "1:15",
              "'require_client_certificate' needs 'client_ca'"},
        Wrong{"listen: {address: '0.0.0.0:1', tls: {certificate: '', key: ''}}\n", "1:19",
              "not a loopback address"},
        Wrong{"metrics: {address: '0.0.0.0:1'}\nlisten: {tls: {certificate: a, key: b}}\n", "1:20",
              "metrics.allow_plaintext"},
        Wrong{"limits: {max_queued_jobs_per_tenant: -1}\n", "1:38", "a whole number from 0"},
        Wrong{"limits: {max_requests_per_second_per_tenant: 0.5}\n", "1:46",
              "a whole number from 0"},
        Wrong{"workers: []\n", "1:10", "at least one worker"},
        Wrong{"workers: many\n", "1:10", "'auto' or a list"},
        Wrong{"workers: [{device: gpu}]\n", "1:20", "'cpu' or 'cuda:N'"},
        Wrong{"workers: [{name: a}, {name: a}]\n", "1:22", "worker 'a' is configured twice"},
        Wrong{"models: [{folder: x}]\n", "1:10", "a model needs 'name'"},
        Wrong{"models: [{name: x}]\n", "1:10", "a model needs 'folder'"},
        Wrong{"models: [{name: ../x, folder: x}]\n", "1:17", "[a-z0-9][a-z0-9._-]{0,127}"},
        Wrong{"models: [{name: x, folder: x, dtype: int8}]\n", "1:38", "auto, float32"},
        Wrong{"models: [{name: x, folder: x, dtype: 'vae=int8'}]\n", "1:38", "vae=float32"},
        Wrong{"models: [{name: x, folder: x, offload: none}]\n", "1:31",
              "unknown key 'models[].offload'"},
        Wrong{"models: [{name: x, folder: x, transformer: x.bin}]\n", "1:44", ".gguf"},
        Wrong{"models: [{name: x, folder: x, allow_lossy: maybe}]\n", "1:44", "true, false"},
        Wrong{"models: [{name: x, folder: x, defaults: {ltx: {sigmas: 0.5}}}]\n", "1:56",
              "'models[].defaults.ltx.sigmas': expected a list of finite numbers"},
        Wrong{"models: [{name: x, folder: x, defaults: {ltx: {sigmas: []}}}]\n", "1:56", "a list"},
        Wrong{"models: [{name: x, folder: x, defaults: {ltx: {sigmas: [1, nan]}}}]\n", "1:56",
              "finite"},
        Wrong{"models: [{name: x, folder: x, plan: none}]\n", "1:37", "expected a map of keys"},
        Wrong{"models: [{name: x, folder: x, plan: {speed: 1}}]\n", "1:38",
              "unknown key 'models[].plan.speed'"},
        Wrong{"models: [{name: x, folder: x, plan: {mode: best}}]\n", "1:44", "'smallest'"},
        Wrong{"models: [{name: x, folder: x, plan: {offload: 'block:0'}}]\n", "1:47", "'block:N'"},
        Wrong{"models: [{name: x, folder: x, plan: {offload: 'none,vae=some'}}]\n", "1:47",
              "'some'"},
        Wrong{"models: [{name: x, folder: x, plan: {weights_home: ram}}]\n", "1:52", "'pageable'"},
        Wrong{"models: [{name: x, folder: x, plan: {quantize: nf5}}]\n", "1:48", "nf4"},
        Wrong{"models: [{name: x, folder: x, plan: {storage_dtype: int4}}]\n", "1:53",
              "float8_e4m3fn"},
        Wrong{"models: [{name: x, folder: x, plan: {prefetch: 9}}]\n", "1:48", "0 to 8"},
        Wrong{"models: [{name: x, folder: x, plan: {chunk_feed_forward: 0}}]\n", "1:58", "1 token"},
        Wrong{"models: [{name: x, folder: x, plan: {llm_int8_threshold: -1}}]\n", "1:58",
              "0 or more"},
        Wrong{"models: [{name: x, folder: x, plan: {max_device_memory: 0}}]\n", "1:57", "from 1"},
        Wrong{"models: [{name: x, folder: x, plan: {vae_tiling: 8}}]\n", "1:50", "true, false"},
        Wrong{"models: [{name: x, folder: x, plan: {vae_tiling: {height: 8}}}]\n", "1:51",
              "unknown key 'models[].plan.vae_tiling.height'"},
        Wrong{"workers: [{max_host_memory: all}]\n", "1:29", "a size such as"},
        Wrong{"models: [{name: x, folder: a}, {name: x, folder: b}]\n", "1:32",
              "already configured at k.yaml:1:10"},
        Wrong{"include: [absent.yaml]\n", "", "no file 'absent.yaml'"}));

// What is sent off loopback is protected, or somebody has said that it need not be.
TEST(ConfigTest, OffLoopbackNeedsTlsOrAWord) {
  const auto tls =
      ParseConfig("listen: {address: '0.0.0.0:1', tls: {certificate: a.pem, key: keys/a.pem}}\n",
                  "/etc/kino/x.yaml");
  ASSERT_TRUE(tls.ok()) << tls.status();
  EXPECT_EQ(tls->listen.address, "0.0.0.0:1");
  EXPECT_EQ(tls->listen.tls.certificate, "/etc/kino/a.pem");
  EXPECT_EQ(tls->listen.tls.key, "/etc/kino/keys/a.pem");
  const auto plain = ParseConfig(
      "listen: {address: '0.0.0.0:1', allow_plaintext: true}\n"
      "metrics: {address: '[::]:2', allow_plaintext: true}\n",
      "x.yaml");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FALSE(plain->listen.tls.is_on());
  EXPECT_EQ(plain->metrics.address, "[::]:2");
}

TEST(ConfigTest, CallersHaveTenantsAndRoles) {
  const auto config = ParseConfig(
      "listen: {tls: {certificate: a, key: b, client_ca: c}}\n"
      "auth:\n"
      "  tokens:\n"
      "    - {sha256: '" +
          kSha +
          "'}\n"
          "    - {sha256: '" +
          kSha +
          "', tenant: a, role: operate}\n"
          "  tokens_file: tokens.yaml\n"
          "  certificates: [{name: studio.example, tenant: b}]\n",
      "/etc/kino/x.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->auth.tokens.size(), 2U);
  EXPECT_EQ(config->auth.tokens[0].tenant, "default");
  EXPECT_EQ(config->auth.tokens[0].role, Role::kUse);
  EXPECT_EQ(config->auth.tokens[1].tenant, "a");
  EXPECT_EQ(config->auth.tokens[1].role, Role::kOperate);
  EXPECT_EQ(config->auth.tokens_file, "/etc/kino/tokens.yaml");
  ASSERT_EQ(config->auth.certificates.size(), 1U);
  EXPECT_EQ(config->auth.certificates[0].name, "studio.example");
  EXPECT_EQ(config->auth.certificates[0].tenant, "b");
  EXPECT_EQ(config->auth.certificates[0].role, Role::kUse);
}

TEST(ConfigTest, WhatIsNotGivenFollowsWhatIs) {
  const auto read = [](const std::string& yaml) {
    const absl::StatusOr<Config> config = ParseConfig(yaml, "k.yaml");
    EXPECT_TRUE(config.ok()) << yaml << config.status();
    return config.ok() ? *config : Config();
  };
  // A pause beyond twice max_backoff is none: the store takes it for a fault of the clock.
  EXPECT_EQ(read("retry: {min_backoff: 200s}").retry.max_backoff, absl::Seconds(200));
  EXPECT_EQ(read("retry: {min_backoff: 2s}").retry.max_backoff, absl::Seconds(60));
  EXPECT_EQ(read("link: {reattach_grace: 5s}").supervisor.restart_max, absl::Seconds(5));
  EXPECT_EQ(read("link: {reattach_grace: 100ms}").supervisor.restart_min, absl::Milliseconds(100));
  EXPECT_EQ(read("supervisor: {restart_min: 12s}").supervisor.restart_max, absl::Seconds(12));
  const Config longer = read("link: {reattach_grace: 1m}\nsupervisor: {restart_max: 60s}");
  EXPECT_EQ(longer.supervisor.restart_max, absl::Seconds(60));
}

TEST(StopTimesTest, WorkersEndWithinEveryDeadline) {
  for (const absl::Duration deadline : {absl::Milliseconds(100), absl::Seconds(1), absl::Seconds(2),
                                        absl::Seconds(5), absl::Seconds(10), absl::Seconds(12),
                                        absl::Seconds(22), absl::Seconds(30), absl::Hours(1)}) {
    const StopTimes times = StopTimesOf(deadline);
    EXPECT_LE(times.workers(), deadline * 0.9 + absl::Nanoseconds(1)) << deadline;
    EXPECT_GE(times.drain, absl::ZeroDuration()) << deadline;
    EXPECT_GT(times.farewell, absl::ZeroDuration()) << deadline;
    EXPECT_GE(times.grace, std::min(absl::Seconds(5), deadline / 2)) << deadline;
  }
  EXPECT_EQ(StopTimesOf(absl::Seconds(30)).drain, absl::Seconds(19));
  EXPECT_EQ(StopTimesOf(absl::Seconds(30)).grace, absl::Seconds(5));
  EXPECT_EQ(StopTimesOf(absl::Seconds(30)).farewell, absl::Seconds(3));
}

TEST(ConfigTest, EveryFaultIsToldAtOnce) {
  const absl::StatusOr<Config> config =
      ParseConfig("log: {level: loud}\nlimits: {run_timeout: 5}\nx: 1\n", "k.yaml");
  EXPECT_THAT(std::string(config.status().message()),
              AllOf(HasSubstr("k.yaml:1:14"), HasSubstr("k.yaml:2:23"), HasSubstr("k.yaml:3:1")));
}

TEST(ConfigTest, PathsAreRelativeToTheFileThatNamesThem) {
  const kino::testing::TempDir folder;
  std::filesystem::create_directories(folder.path() + "/models");
  std::ofstream(folder.path() + "/models/b.yaml") << "models: [{name: b, folder: weights}]\n";
  std::ofstream(folder.path() + "/k.yaml")
      << "data_dir: data\nmodels: [{name: a, folder: ../a}]\ninclude: ['models/*.yaml']\n";
  const absl::StatusOr<Config> config = LoadConfig(folder.path() + "/k.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->data_dir, folder.path() + "/data");
  ASSERT_EQ(config->models.size(), 2u);
  EXPECT_EQ(config->models[0].folder,
            std::filesystem::path(folder.path()).parent_path().string() + "/a");
  EXPECT_EQ(config->models[1].folder, folder.path() + "/models/weights");
}

TEST(ConfigTest, ANameIsConfiguredOnceInAllFiles) {
  const kino::testing::TempDir folder;
  for (const char* const name : {"m.yaml", "n.yaml"})
    folder.Write(name, "models: [{name: a, folder: weights}]\n");
  folder.Write("k.yaml", "include: [m.yaml, n.yaml]\n");
  EXPECT_THAT(std::string(LoadConfig(folder.path() + "/k.yaml").status().message()),
              AllOf(HasSubstr("n.yaml:1:10: model 'a' was already configured at "),
                    HasSubstr("m.yaml:1:10")));
}

// What they say, an empty text among it, and whole numbers as such.
TEST(ConfigTest, DefaultsAreTakenAsTheyStand) {
  const absl::StatusOr<Config> config = ParseConfig(
      "models: [{name: a, folder: /a, defaults: {negative_prompt: '', fps: 24, cogvideox: "
      "{scheduler: 2}}}, {name: b, folder: /b, defaults: {height: 64}}]\n",
      "k.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  const engine::Request& defaults = config->models[0].defaults;
  EXPECT_EQ(defaults.negative_prompt, "");
  EXPECT_EQ(defaults.fps, 24);
  EXPECT_EQ(defaults.knobs.family, "cogvideox");
  EXPECT_EQ(defaults.knobs.values.at("scheduler"), engine::KnobValue(int64_t{2}));
  EXPECT_FALSE(config->models[1].defaults.negative_prompt);
}

TEST(ConfigTest, IncludedFileHoldsModelsOnly) {
  const kino::testing::TempDir folder;
  std::ofstream(folder.path() + "/m.yaml") << "models: []\nlisten: {address: '127.0.0.1:1'}\n";
  std::ofstream(folder.path() + "/k.yaml") << "include: [m.yaml]\n";
  const absl::StatusOr<Config> config = LoadConfig(folder.path() + "/k.yaml");
  EXPECT_THAT(std::string(config.status().message()),
              HasSubstr("m.yaml:2:1: unknown key 'listen'"));
}

TEST(ConfigTest, WorkersAreNamedByDeviceAndCount) {
  const absl::StatusOr<Config> config = ParseConfig(
      "workers: [{count: 2}, {device: 'cuda:1'}, {name: big, count: 2, threads: 4}]\n", "k.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  std::vector<std::string> names;
  for (const WorkerConfig& worker : config->workers) names.push_back(worker.name);
  EXPECT_THAT(names, ::testing::ElementsAre("cpu", "cpu-1", "cuda-1", "big-0", "big-1"));
  EXPECT_EQ(config->workers[3].threads, 4);
}

TEST(ConfigTest, PlansAreReadWithEveryOption) {
  const absl::StatusOr<Config> config = ParseConfig(R"(
workers: [{max_device_memory: 20GiB, max_host_memory: 48G}, {}]
models:
  - name: a
    folder: /a
    transformer: q4.gguf
    text_encoder: llama.gguf
    allow_lossy: true
    allow_plan_override: false
    plan:
      mode: auto
      offload: block:2,vae=none
      weights_home: pageable
      prefetch: 2
      storage_dtype: float8_e4m3fn
      quantize: text_encoder=nf4
      quantize_skip: [proj_out, norm]
      llm_int8_threshold: 4.5
      chunk_feed_forward: 1024
      vae_tiling: {tile_sample_min_height: 256, tile_sample_stride_num_frames: 8, framewise: true}
      max_device_memory: 5.5GiB
      max_host_memory: 16GiB
  - {name: b, folder: /b, plan: {vae_tiling: true}}
  - {name: c, folder: /c, plan: {vae_tiling: false}}
  - {name: d, folder: /d, plan: {vae_tiling: {framewise: false}}}
)",
                                                    "/etc/k.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  const ModelConfig& a = config->models.at(0);
  EXPECT_EQ(a.original_files, (engine::OriginalFiles{{"text_encoder", "/etc/llama.gguf"},
                                                     {"transformer", "/etc/q4.gguf"}}));
  EXPECT_TRUE(a.allow_lossy);
  EXPECT_FALSE(a.allow_plan_override);
  engine::Plan plan;
  plan.mode = "auto";
  plan.offload = "block:2,vae=none";
  plan.weights_home = "pageable";
  plan.prefetch = 2;
  plan.storage_dtype = "float8_e4m3fn";
  plan.quantize = "text_encoder=nf4";
  plan.quantize_skip = {"proj_out", "norm"};
  plan.llm_int8_threshold = 4.5;
  plan.chunk_feed_forward = 1024;
  plan.vae_tiling.emplace();
  plan.vae_tiling->tile_sample_min_height = 256;
  plan.vae_tiling->tile_sample_stride_num_frames = 8;
  plan.vae_tiling->framewise = true;
  plan.max_device_memory = 5905580032;
  plan.max_host_memory = int64_t{16} << 30;
  EXPECT_EQ(a.plan, plan);
  engine::Plan tiled;
  tiled.vae_tiling.emplace();
  EXPECT_EQ(config->models.at(1).plan, tiled);
  EXPECT_EQ(config->models.at(2).plan, engine::Plan());
  tiled.vae_tiling->framewise = false;
  EXPECT_EQ(config->models.at(3).plan, tiled);
  EXPECT_FALSE(config->models.at(2).allow_lossy);
  EXPECT_TRUE(config->models.at(2).allow_plan_override);
  EXPECT_TRUE(config->models.at(2).original_files.empty());
  EXPECT_EQ(config->workers.at(0).max_device_memory, int64_t{20} << 30);
  EXPECT_EQ(config->workers.at(0).max_host_memory, 48'000'000'000);
  EXPECT_EQ(config->workers.at(1).max_device_memory, 0);
}

// What config/kino.yaml shows of a model, taken out of its comments, is accepted.
TEST(ConfigTest, ExampleModelIsValid) {
  std::ifstream file(Example());
  std::string line, yaml = "models:\n";
  bool is_model = false;
  while (std::getline(file, line)) {
    if (line.rfind("#   - name: ltx-2b", 0) == 0) is_model = true;
    if (line.rfind("models:", 0) == 0) is_model = false;
    if (is_model && !line.empty()) yaml += line.substr(1) + "\n";
  }
  // Of the two forms of vae_tiling that it shows, the map.
  const absl::StatusOr<Config> config = ParseConfig(
      std::regex_replace(yaml, std::regex("vae_tiling: false"), "vae_tiling:      "), "k.yaml");
  ASSERT_TRUE(config.ok()) << config.status() << "\n" << yaml;
  ASSERT_EQ(config->models.size(), 1u);
  const engine::Plan& plan = config->models[0].plan;
  EXPECT_TRUE(plan.mode && plan.offload && plan.weights_home && plan.prefetch &&
              plan.storage_dtype && plan.quantize && plan.llm_int8_threshold &&
              plan.chunk_feed_forward && plan.vae_tiling && plan.max_device_memory &&
              plan.max_host_memory);
}

TEST(ConfigTest, ShippedDemoAndIncludedModelsLoad) {
  const absl::StatusOr<Config> demo =
      LoadConfig(std::string(KINO_SOURCE_DIR) + "/config/demo.yaml");
  ASSERT_TRUE(demo.ok()) << demo.status();
  ASSERT_EQ(demo->models.size(), 1u);
  EXPECT_TRUE(std::filesystem::exists(demo->models[0].folder + "/model_index.json"));
  const absl::StatusOr<Config> included =
      ParseConfig("include: ['models/*.yaml']\n", std::string(KINO_SOURCE_DIR) + "/config/x.yaml");
  ASSERT_TRUE(included.ok()) << included.status();
  // Of all that are shipped, the demo's folder alone is here.
  const auto shipped =
      std::find_if(included->models.begin(), included->models.end(),
                   [&](const ModelConfig& model) { return model.name == demo->models[0].name; });
  ASSERT_NE(shipped, included->models.end());
  EXPECT_TRUE(std::filesystem::exists(shipped->folder + "/model_index.json"));
}

TEST(ConfigTest, RequestsPlansGoOverTheModelsWithinItsLimits) {
  ModelConfig model;
  model.plan.offload = "block:1";
  model.plan.quantize = "text_encoder=nf4";
  model.plan.max_device_memory = 1000;
  engine::Plan request;
  request.offload = "leaf";
  request.max_device_memory = 2000;
  request.max_host_memory = 3000;
  const engine::Plan plan = EffectivePlan(model, request);
  EXPECT_EQ(plan.offload, "leaf");
  EXPECT_EQ(plan.quantize, "text_encoder=nf4");
  EXPECT_EQ(plan.max_device_memory, 1000);
  EXPECT_EQ(plan.max_host_memory, 3000);
  request.max_device_memory = 500;
  EXPECT_EQ(EffectivePlan(model, request).max_device_memory, 500);
  EXPECT_EQ(EffectivePlan(model, engine::Plan()), model.plan);
  EXPECT_EQ(WithLimits(engine::Plan(), 7, 0).max_device_memory, 7);
  EXPECT_FALSE(WithLimits(engine::Plan(), 0, 0).max_device_memory.has_value());
}

TEST(ConfigTest, WhatClientsSeeOfAModelsFilesHasNoPath) {
  EXPECT_EQ(WithoutPaths("/models/ltx", {}, "no weights in '/models/ltx/vae': looked for x"),
            "no weights in 'vae': looked for x");
  EXPECT_EQ(WithoutPaths("/models/ltx", {}, "'/models/ltx': not a folder"), "'.': not a folder");
  EXPECT_EQ(WithoutPaths("/models/ltx", {{"transformer", "/secret/q4.gguf"}},
                         "'/secret/q4.gguf': no such file"),
            "'q4.gguf': no such file");
}

TEST(ConfigTest, MissingFileIsNotFound) {
  EXPECT_EQ(LoadConfig("/nonexistent/kino.yaml").status().code(), absl::StatusCode::kNotFound);
}

TEST(ConfigTest, NamesAreLowerCaseAndStartWithALetterOrDigit) {
  for (const char* good : {"a", "0", "ltx-2b_v0.9"}) EXPECT_TRUE(IsValidName(good)) << good;
  for (const char* bad : {"", "-a", ".a", "A", "a/b", "a b", "\xc3\xa9"}) {
    EXPECT_FALSE(IsValidName(bad)) << bad;
  }
  EXPECT_TRUE(IsValidName(std::string(128, 'a')));
  EXPECT_FALSE(IsValidName(std::string(129, 'a')));
}

// Of each worker in turn, where `cores` may be used.
std::vector<int> Threads(const std::string& workers, int cores) {
  const absl::StatusOr<Config> config = ParseConfig("workers: " + workers + "\n", "kino.yaml");
  EXPECT_TRUE(config.ok()) << config.status();
  std::vector<int> threads;
  for (const WorkerConfig& worker : config->workers) {
    threads.push_back(CoresOf(*config, worker, cores));
  }
  return threads;
}

TEST(WorkerThreadsTest, OneWorkerHasAllCores) {
  EXPECT_THAT(Threads("[{device: cpu}]", 8), ElementsAre(8));
}

TEST(WorkerThreadsTest, WorkersOnTheCpuShareTheCoresEqually) {
  EXPECT_THAT(Threads("[{device: cpu, count: 2}]", 8), ElementsAre(4, 4));
  EXPECT_THAT(Threads("[{name: a}, {name: b}, {name: c}]", 8), ElementsAre(2, 2, 2));
}

TEST(WorkerThreadsTest, EachHasAtLeastOne) {
  EXPECT_THAT(Threads("[{device: cpu, count: 3}]", 2), ElementsAre(1, 1, 1));
  EXPECT_THAT(Threads("[{name: a, threads: 8}, {name: b}]", 4), ElementsAre(8, 1));
}

TEST(WorkerThreadsTest, ThreadsOfOnesOwnAreKeptAndLeaveTheRest) {
  EXPECT_THAT(Threads("[{name: a, threads: 2}, {name: b, count: 2}]", 8), ElementsAre(2, 3, 3));
  EXPECT_THAT(Threads("[{name: a, threads: 3, count: 2}]", 8), ElementsAre(3, 3));
}

TEST(WorkerThreadsTest, WorkersOnAGpuTakeNoShare) {
  EXPECT_THAT(
      Threads("[{device: 'cuda:0'}, {device: 'cuda:1', threads: 6}, {device: cpu, count: 2}]", 8),
      ElementsAre(8, 6, 4, 4));
}

}  // namespace
}  // namespace kino::config
