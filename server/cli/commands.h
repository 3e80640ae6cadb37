// The commands that are one call each, and what all commands share. One thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/cli/client.h"
#include "server/command_line/command_line.h"

namespace kino::cli {

// --server, --token, --tls and its kind, --json, --quiet, and what command_line::SetUp adds: every
// command takes them. Stays where it is once it is registered.
struct CommonFlags {
  ServerOptions server;
  bool is_json = false, is_quiet = false;

  CommonFlags();  // KINO_SERVER, KINO_TOKEN, KINO_TLS_CA and so on, else the defaults
  ErrorStyle errors() const {
    return {.server = server.address, .is_json = is_json, .job_id = "", .asset_id = ""};
  }
  // Sets `app` up and adds them.
  void Register(CLI::App& app, const std::string& footer = "");

 private:
  // Reads the files that `server.tls` is made of.
  void ReadTlsFiles();

  std::string tls_ca_, tls_cert_, tls_key_;
};

// command_line::ParseOrExit with this program's codes.
std::optional<ExitCode> Parse(CLI::App& app, const std::vector<std::string>& arguments);

// Whether --json is among them, for a command line that is wrong.
bool WantsJson(const std::vector<std::string>& arguments);

// Prints what is wrong with the command line.
ExitCode UsageError(const std::string& message, bool is_json);

// What is wrong with an --out before anything is asked of the server: a folder, for one. Empty is
// right.
std::optional<ExitCode> CheckOutput(const CommonFlags& common, const std::string& out);

ExitCode JobsCommand(const std::vector<std::string>& arguments);
ExitCode ShowCommand(const std::vector<std::string>& arguments);
ExitCode CancelCommand(const std::vector<std::string>& arguments);
ExitCode RequeueCommand(const std::vector<std::string>& arguments);
ExitCode DeleteCommand(const std::vector<std::string>& arguments);
ExitCode DownloadCommand(const std::vector<std::string>& arguments);
ExitCode PlanCommand(const std::vector<std::string>& arguments);  // plan_command.cc
ExitCode ModelsCommand(const std::vector<std::string>& arguments);
ExitCode LoadCommand(const std::vector<std::string>& arguments);
ExitCode UnloadCommand(const std::vector<std::string>& arguments);
ExitCode HealthCommand(const std::vector<std::string>& arguments);
ExitCode DoctorCommand(const std::vector<std::string>& arguments);  // doctor_command.cc
ExitCode UploadCommand(const std::vector<std::string>& arguments);

}  // namespace kino::cli
