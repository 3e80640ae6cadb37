#include "server/command_line/command_line.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/command_line/utf8.h"

namespace kino::command_line {
namespace {

constexpr size_t kHelpColumn = 32;
constexpr size_t kHelpWidth = 100;
constexpr int kExitUsage = 2;
constexpr char kUtf8Form[] = "a text in UTF-8";

// CLI11 prints a text as it is, each line of it from `column` on.
std::string Wrapped(const std::string& text, size_t column = kHelpColumn) {
  std::string out;
  size_t at = column;
  for (const std::string& word :
       std::vector<std::string>(absl::StrSplit(text, ' ', absl::SkipEmpty()))) {
    if (at > column && at + 1 + word.size() > kHelpWidth) {
      absl::StrAppend(&out, "\n");
      at = column;
    }
    const bool is_first = at == column;
    absl::StrAppend(&out, is_first ? "" : " ", word);
    at += word.size() + (is_first ? 0 : 1);
  }
  return out;
}

bool Read(const std::string& text, std::string* value) {
  *value = text;
  return true;
}
bool Read(const std::string& text, int* value) { return absl::SimpleAtoi(text, value); }
bool Read(const std::string& text, uint64_t* value) { return absl::SimpleAtoi(text, value); }
bool Read(const std::string& text, double* value) {
  return absl::SimpleAtod(text, value) && std::isfinite(*value);
}

const char* Form(const std::string*) { return "a text"; }
const char* Form(const int*) { return "a whole number"; }
const char* Form(const uint64_t*) { return "a whole number of 64 bits, not negative"; }
const char* Form(const double*) { return "a finite number"; }

// A name in the file system is any bytes; other texts go into messages.
bool IsPath(const std::string& name, const std::string& placeholder) {
  const auto is_path = [](const std::string& word) {
    return word == "FILE" || word == "DIR" || word == "PATH";
  };
  return is_path(placeholder) || is_path(name);
}

// `target` is a T, an optional of it or a vector of it.
template <typename T, typename Target>
CLI::Option* AddTyped(CLI::App& app, const std::string& name, Target* target,
                      const std::string& placeholder, const std::string& help) {
  const bool is_any = IsPath(name, placeholder);
  const auto set = [target, is_any](const std::string& text) -> std::string {
    T value{};
    if (!is_any && !IsUtf8(text)) return kUtf8Form;
    if (!Read(text, &value)) return Form(&value);
    *target = std::move(value);
    return "";
  };
  return AddOption(app, name, set, placeholder, help);
}

// Without the command behind it: "kino" of "kino jobs".
std::string Program(const CLI::App& app) {
  return app.get_name().substr(0, app.get_name().find(' '));
}

// CLI11 takes the argument after "--name=" for its value.
std::vector<std::string> WithEmptyValues(const std::vector<std::string>& arguments) {
  std::vector<std::string> out;
  bool are_positional = false;
  for (const std::string& argument : arguments) {
    are_positional = are_positional || argument == "--";
    if (!are_positional && argument.size() > 3 && argument.rfind("--", 0) == 0 &&
        argument.find('=') == argument.size() - 1) {
      out.push_back(argument.substr(0, argument.size() - 1));
      out.emplace_back();
    } else {
      out.push_back(argument);
    }
  }
  return out;
}

}  // namespace

void SetUp(CLI::App& app, const std::string& footer) {
  app.description(Wrapped(app.get_description(), 0));
  app.footer(Wrapped(footer, 0));
  app.get_formatter()->column_width(kHelpColumn);
  app.set_help_flag("-h,--help", "Prints this.");
  app.set_version_flag("--version", absl::StrCat(Program(app), " ", KINO_VERSION),
                       "Prints the version.");
}

CLI::Option* AddOption(CLI::App& app, const std::string& name,
                       std::function<std::string(const std::string&)> set,
                       const std::string& placeholder, const std::string& help) {
  const auto read = [name, set = std::move(set)](const CLI::results_t& texts) {
    for (const std::string& text : texts) {
      const std::string expected = set(text);
      if (!expected.empty()) {
        throw CLI::ValidationError(std::string(BadValue(name, expected, text).message()),
                                   CLI::ExitCodes::ValidationError);
      }
    }
    return true;
  };
  return app.add_option(name, read, Wrapped(help))
      ->type_name(placeholder)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

CLI::Option* AddOption(CLI::App& app, const std::string& name, std::string* value,
                       const std::string& placeholder, const std::string& help) {
  return AddTyped<std::string>(app, name, value, placeholder, help);
}

CLI::Option* AddOption(CLI::App& app, const std::string& name, std::optional<std::string>* value,
                       const std::string& placeholder, const std::string& help) {
  return AddTyped<std::string>(app, name, value, placeholder, help);
}

CLI::Option* AddOption(CLI::App& app, const std::string& name, int* value,
                       const std::string& placeholder, const std::string& help) {
  return AddTyped<int>(app, name, value, placeholder, help);
}

CLI::Option* AddOption(CLI::App& app, const std::string& name, std::optional<int>* value,
                       const std::string& placeholder, const std::string& help) {
  return AddTyped<int>(app, name, value, placeholder, help);
}

CLI::Option* AddOption(CLI::App& app, const std::string& name, std::optional<uint64_t>* value,
                       const std::string& placeholder, const std::string& help) {
  return AddTyped<uint64_t>(app, name, value, placeholder, help);
}

CLI::Option* AddOption(CLI::App& app, const std::string& name, std::optional<double>* value,
                       const std::string& placeholder, const std::string& help) {
  return AddTyped<double>(app, name, value, placeholder, help);
}

CLI::Option* AddOption(CLI::App& app, const std::string& name, std::vector<std::string>* values,
                       const std::string& placeholder, const std::string& help) {
  const bool is_any = IsPath(name, placeholder);
  const auto collect = [name, values, is_any](const CLI::results_t& texts) {
    for (const std::string& text : texts) {
      if (is_any || IsUtf8(text)) continue;
      throw CLI::ValidationError(std::string(BadValue(name, kUtf8Form, text).message()),
                                 CLI::ExitCodes::ValidationError);
    }
    *values = texts;
    return true;
  };
  return app.add_option(name, collect, Wrapped(help))
      ->type_name(placeholder)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

absl::Status BadValue(const std::string& name, const std::string& expected,
                      const std::string& got) {
  return absl::InvalidArgumentError(absl::StrCat(name, ": expected ", expected, ", got '",
                                                 IsUtf8(got) ? got : absl::CHexEscape(got), "'"));
}

absl::StatusOr<std::string> Parse(CLI::App& app, const std::vector<std::string>& arguments) {
  std::vector<std::string> reversed = WithEmptyValues(arguments);
  std::reverse(reversed.begin(), reversed.end());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    return app.help();
  } catch (const CLI::CallForVersion& version) {
    return absl::StrCat(version.what(), "\n");
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  return "";
}

std::optional<int> ParseOrExit(CLI::App& app, const std::vector<std::string>& arguments) {
  const absl::StatusOr<std::string> text = Parse(app, arguments);
  if (!text.ok()) return UsageError(Program(app), std::string(text.status().message()));
  if (text->empty()) return std::nullopt;
  std::cout << *text;
  return FinishOutput(Program(app), 0, 1);
}

int UsageError(const std::string& program, const std::string& message) {
  std::cerr << program << ": " << message << "\nTry --help.\n";
  return kExitUsage;
}

void GuardStandardStreams() {
  // The next file or socket would take the number of a closed one, and get what is meant for it.
  // What is opened in its place cannot be used, so that using it is an error as before.
  for (const auto& [fd, flags] :
       {std::pair(STDIN_FILENO, O_WRONLY), {STDOUT_FILENO, O_RDONLY}, {STDERR_FILENO, O_RDONLY}}) {
    if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    const int opened = open("/dev/null", flags);
    if (opened >= 0 && opened != fd) {
      dup2(opened, fd);
      close(opened);
    }
  }
  // A reader that has gone is an error to tell as well.
  signal(SIGPIPE, SIG_IGN);
}

absl::Status TakeOutputError() {
  errno = 0;
  std::cout.flush();
  bool is_written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout.good();
  int error = errno;
  // Some file systems tell of a full disk only then.
  if (const int copy = is_written ? dup(STDOUT_FILENO) : -1; copy >= 0 && close(copy) != 0) {
    is_written = false;
    error = errno;
  }
  if (is_written) return absl::OkStatus();
  std::cout.clear();
  std::clearerr(stdout);
  return absl::DataLossError(absl::StrCat("standard output cannot be written",
                                          error == 0 ? "" : ": ",
                                          error == 0 ? "" : std::strerror(error)));
}

int FinishOutput(const std::string& program, int code, int failure) {
  const absl::Status error = TakeOutputError();
  if (error.ok()) return code;
  std::cerr << program << ": " << std::string(error.message()) << "\n";
  return code == 0 ? failure : code;
}

std::vector<std::string> Arguments(int argc, char** argv) {
  return std::vector<std::string>(argv + std::min(argc, 1), argv + argc);
}

}  // namespace kino::command_line
