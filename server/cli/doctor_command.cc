// `kino doctor`: what is found on this machine, and what to do about it. Asks no server.
#include <google/protobuf/struct.pb.h>

#include <algorithm>
#include <iostream>
#include <optional>

#include "server/cli/commands.h"
#include "server/cli/print.h"
#include "server/config/config.h"
#include "server/doctor/findings.h"
#include "server/doctor/node.h"

namespace kino::cli {
namespace {

google::protobuf::Struct ToStruct(const std::vector<doctor::Finding>& findings) {
  google::protobuf::Struct root;
  auto& list = *(*root.mutable_fields())["findings"].mutable_list_value();
  for (const doctor::Finding& finding : findings) {
    auto& fields = *list.add_values()->mutable_struct_value()->mutable_fields();
    fields["name"].set_string_value(finding.name);
    fields["status"].set_string_value(doctor::VerdictName(finding.verdict));
    fields["found"].set_string_value(finding.found);
    if (!finding.advice.empty()) fields["advice"].set_string_value(finding.advice);
  }
  return root;
}

}  // namespace

ExitCode DoctorCommand(const std::vector<std::string>& arguments) {
  std::string file;
  bool is_json = false;
  CLI::App app(
      "Looks at this machine and, with --config, at what that configuration needs of it. Asks no "
      "server; run it as the user that Kino runs as.",
      "kino doctor");
  command_line::SetUp(app, "Exit code 1 when something is found that Kino cannot run with.");
  command_line::AddOption(app, "--config", &file, "FILE", "kinod's configuration.");
  app.add_flag("--json", is_json, "One JSON object.");
  if (auto code = Parse(app, arguments)) return *code;

  std::vector<doctor::Finding> findings;
  std::optional<config::Config> config;
  if (!file.empty()) {
    absl::StatusOr<config::Config> loaded = config::LoadConfig(file);
    if (loaded.ok()) {
      config = *std::move(loaded);
    } else {
      findings.push_back({"configuration", doctor::Verdict::kFailure,
                          std::string(loaded.status().message()),
                          "config/kino.yaml documents every key"});
    }
  }
  const config::Config* const known = config ? &*config : nullptr;
  for (doctor::Finding& finding : doctor::Judge(doctor::LookAtNode(known), known))
    findings.push_back(std::move(finding));
  if (is_json) {
    PrintJson(ToStruct(findings));
  } else {
    std::cout << doctor::AsText(findings);
  }
  return std::any_of(findings.begin(), findings.end(),
                     [](const doctor::Finding& finding) {
                       return finding.verdict == doctor::Verdict::kFailure;
                     })
             ? kJobFailed
             : kOk;
}

}  // namespace kino::cli
