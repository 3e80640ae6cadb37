// What every Kino program asks of CLI11, whose own types declare the options: `CLI::App` is the
// program or command, `CLI::App::add_flag` a switch. One thread. A variable that an option fills
// belongs to the caller and outlives the app.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kino::command_line {

// Before the first option: wraps the app's description for --help, and `footer`, which stands below
// the options; adds --help and --version.
void SetUp(CLI::App& app, const std::string& footer = "");

// An option "--name VALUE" or "--name=VALUE", or an argument where `name` has no dashes.
// `placeholder` stands for the value in --help, which wraps `help`. A number is decimal and
// finite. A vector collects every occurrence; of others the last one holds. A text has to be UTF-8,
// unless it is a name in the file system: `placeholder` (or `name`) is FILE, DIR or PATH then.
CLI::Option* AddOption(CLI::App& app, const std::string& name, std::string* value,
                       const std::string& placeholder, const std::string& help);
CLI::Option* AddOption(CLI::App& app, const std::string& name, std::optional<std::string>* value,
                       const std::string& placeholder, const std::string& help);
CLI::Option* AddOption(CLI::App& app, const std::string& name, int* value,
                       const std::string& placeholder, const std::string& help);
CLI::Option* AddOption(CLI::App& app, const std::string& name, std::optional<int>* value,
                       const std::string& placeholder, const std::string& help);
CLI::Option* AddOption(CLI::App& app, const std::string& name, std::optional<uint64_t>* value,
                       const std::string& placeholder, const std::string& help);
CLI::Option* AddOption(CLI::App& app, const std::string& name, std::optional<double>* value,
                       const std::string& placeholder, const std::string& help);
CLI::Option* AddOption(CLI::App& app, const std::string& name, std::vector<std::string>* values,
                       const std::string& placeholder, const std::string& help);
// `set` gets the text and tells what was expected instead when it cannot be read ("a duration like
// 90s"), or "".
CLI::Option* AddOption(CLI::App& app, const std::string& name,
                       std::function<std::string(const std::string&)> set,
                       const std::string& placeholder, const std::string& help);

// INVALID_ARGUMENT: "--name: expected ..., got '...'".
absl::Status BadValue(const std::string& name, const std::string& expected, const std::string& got);

// `arguments` without the program's name. The text of --help or --version where one of them is
// among them, which is then all there is to do; otherwise "". INVALID_ARGUMENT names the option.
absl::StatusOr<std::string> Parse(CLI::App& app, const std::vector<std::string>& arguments);

// What a program's main does with it: prints the text, or what is wrong under the program's name.
// An exit code when there is nothing more to do: 0, or 2 for a mistake.
std::optional<int> ParseOrExit(CLI::App& app, const std::vector<std::string>& arguments);

// Prints what is wrong with a command line; the exit code for it, 2.
int UsageError(const std::string& program, const std::string& message);

// First in main, before anything is opened: a standard stream that is closed stays an error to use,
// and so does a pipe whose reader has gone.
void GuardStandardStreams();

// Whether all that was printed to standard output has been written: a full disk is seen only here.
// DATA_LOSS, once: it could not be.
absl::Status TakeOutputError();

// Last in main: the exit code, which is `failure` in the place of 0 where standard output could not
// be written; says so then.
int FinishOutput(const std::string& program, int code, int failure);

// The arguments of main() without the program's name.
std::vector<std::string> Arguments(int argc, char** argv);

}  // namespace kino::command_line
