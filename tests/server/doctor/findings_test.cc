#include "server/doctor/findings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace kino::doctor {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

config::Config GoodConfig() {
  config::Config config;
  config.workers = {{.name = "gpu", .device = "cuda:0"}};
  return config;
}

NodeFacts GoodFacts() {
  return {.now = absl::FromUnixSeconds(1'000'000'000),
          .driver = {.version = "580", .cuda = 13000, .gpus = {{"H100", 80 * kGiB, 79 * kGiB}}},
          .cores = 16,
          .memory_bytes = 128 * kGiB,
          .open_files = 65536,
          .data = DataFolder{.path = "/data",
                             .exists = true,
                             .mode = 0700,
                             .free_bytes = 100 * kGiB,
                             .sync = absl::Milliseconds(2)},
          .listeners = {{.key = "listen.address", .address = "127.0.0.1:1"}},
          .models = {{.name = "m", .found = "ltx (LTXPipeline)"}},
          .has_certificate = true,
          .certificate_end = absl::FromUnixSeconds(1'000'000'000) + absl::Hours(24 * 90)};
}

// Of the finding of that name.
Finding Of(const std::vector<Finding>& findings, const std::string& name) {
  for (const Finding& finding : findings)
    if (finding.name == name) return finding;
  ADD_FAILURE() << "no finding " << name;
  return {};
}

TEST(FindingsTest, AGoodNodeHasNothingToDo) {
  const config::Config config = GoodConfig();
  for (const Finding& finding : Judge(GoodFacts(), &config)) {
    EXPECT_EQ(finding.verdict, Verdict::kOk) << finding.name << ": " << finding.found;
    EXPECT_EQ(finding.advice, "") << finding.name;
    EXPECT_NE(finding.found, "") << finding.name;
  }
}

struct Fault {
  const char* name;
  Verdict verdict;
  std::function<void(NodeFacts&)> plant;
  const char* says;
};

class FaultTest : public ::testing::TestWithParam<Fault> {};

// Each alone, on a node that is good else.
const Fault kFaults[] = {
    {"driver", Verdict::kFailure, [](NodeFacts& f) { f.driver = {}; }, "no NVIDIA driver"},
    {"driver", Verdict::kFailure, [](NodeFacts& f) { f.driver.cuda = 12080; }, "CUDA 12.8"},
    {"driver", Verdict::kFailure, [](NodeFacts& f) { f.driver.problem = "GPU 0 does not answer"; },
     "GPU 0 does not answer"},
    {"cuda:0", Verdict::kWarning, [](NodeFacts& f) { f.driver.gpus[0].free_bytes = 40 * kGiB; },
     "40.0 GiB free"},
    {"machine", Verdict::kWarning, [](NodeFacts& f) { f.memory_bytes = 4 * kGiB; }, "4.0 GiB"},
    {"open files", Verdict::kWarning, [](NodeFacts& f) { f.open_files = 1024; }, "1024"},
    {"data folder", Verdict::kFailure, [](NodeFacts& f) { f.data->problem = "'/data': no"; },
     "'/data': no"},
    {"data folder", Verdict::kFailure, [](NodeFacts& f) { f.data->is_own = false; },
     "another user's"},
    {"data folder", Verdict::kWarning, [](NodeFacts& f) { f.data->mode = 0755; }, "mode 755"},
    {"data folder", Verdict::kWarning, [](NodeFacts& f) { f.data->file_system = "nfs"; }, "nfs"},
    {"data folder", Verdict::kWarning, [](NodeFacts& f) { f.data->file_system = "tmpfs"; },
     "tmpfs"},
    {"disk", Verdict::kFailure, [](NodeFacts& f) { f.data->free_bytes = 1 << 20; }, "0.0 GiB"},
    {"fsync", Verdict::kWarning, [](NodeFacts& f) { f.data->sync = absl::Milliseconds(200); },
     "200.0 ms"},
    {"listen.address", Verdict::kFailure, [](NodeFacts& f) { f.listeners[0].problem = "taken"; },
     "taken"},
    {"certificate", Verdict::kFailure, [](NodeFacts& f) { f.certificate_problem = "no key"; },
     "no key"},
    {"certificate", Verdict::kFailure,
     [](NodeFacts& f) { f.certificate_end = f.now - absl::Seconds(1); }, "ended"},
    {"certificate", Verdict::kWarning,
     [](NodeFacts& f) { f.certificate_end = f.now + absl::Hours(24 * 13); }, "ends"},
    {"callers", Verdict::kFailure, [](NodeFacts& f) { f.credentials_problem = "no such file"; },
     "no such file"},
    {"model m", Verdict::kFailure, [](NodeFacts& f) { f.models[0].problem = "no vae"; }, "no vae"},
    {"models", Verdict::kWarning, [](NodeFacts& f) { f.models.clear(); }, "none"},
};

TEST_P(FaultTest, IsToldWithWhatToDo) {
  const config::Config config = GoodConfig();
  NodeFacts facts = GoodFacts();
  GetParam().plant(facts);
  const std::vector<Finding> findings = Judge(facts, &config);
  const Finding finding = Of(findings, GetParam().name);
  EXPECT_EQ(finding.verdict, GetParam().verdict);
  EXPECT_THAT(finding.found, ::testing::HasSubstr(GetParam().says));
  EXPECT_NE(finding.advice, "");
  EXPECT_EQ(std::count_if(findings.begin(), findings.end(),
                          [](const Finding& other) { return other.verdict != Verdict::kOk; }),
            1)
      << AsText(findings);
}

INSTANTIATE_TEST_SUITE_P(Each, FaultTest, ::testing::ValuesIn(kFaults));

TEST(FindingsTest, WithoutAGpuWorkersOnTheCpuAreWell) {
  config::Config config = GoodConfig();
  config.workers[0].device = "cpu";
  NodeFacts facts = GoodFacts();
  facts.driver = {};
  EXPECT_EQ(Of(Judge(facts, &config), "driver").verdict, Verdict::kOk);
}

TEST(FindingsTest, AnAddressThatTheServerItselfHasIsWell) {
  const config::Config config = GoodConfig();
  NodeFacts facts = GoodFacts();
  facts.listeners[0].problem = "taken";
  facts.listeners[0].is_running = true;
  EXPECT_EQ(Of(Judge(facts, &config), "listen.address").verdict, Verdict::kOk);
}

TEST(FindingsTest, TextAlignsAndCounts) {
  EXPECT_EQ(AsText({{"a", Verdict::kOk, "well"},
                    {"longer", Verdict::kFailure, "broken", "mend it"},
                    {"b", Verdict::kWarning, "odd", "look"}}),
            "ok       a       well\n"
            "failure  longer  broken\n"
            "                 do: mend it\n"
            "warning  b       odd\n"
            "                 do: look\n"
            "1 failure, 1 warning\n");
}

}  // namespace
}  // namespace kino::doctor
