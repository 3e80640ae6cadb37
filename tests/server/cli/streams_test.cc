// What `kino` reads and writes: files, links, pipes, terminals, standard input and output.
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <thread>

#include "tests/server/cli/cli_fixture.h"

namespace kino::cli {
namespace {

TEST_F(CliTest, AnUnwritableFileIsToldBeforeAnythingIsSubmitted) {
  server_.generate = [](const v1::GenerateRequest&, EventWriter*) {
    ADD_FAILURE() << "submitted";
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "x", "--out", "/nonexistent/a.mp4"}), 4);
  EXPECT_THAT(Output(), HasSubstr("/nonexistent/a.mp4"));
}

TEST_F(CliTest, APipeGetsTheVideoAndStaysAPipe) {
  ServeVideo("abcdef");
  const std::string pipe = folder_ + "/pipe.mp4";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const char* command : {"generate x", "download job-1"}) {
    EXPECT_EQ(RunShell(std::string(command) + " --out " + pipe, "",
                       "cat " + pipe + " > " + folder_ + "/got &"),
              0)
        << Output();
    // The reader has its end of file by then, but not yet the processor.
    for (int i = 0; i < 20000 && ReadAll(folder_ + "/got") != "abcdef"; ++i) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_EQ(ReadAll(folder_ + "/got"), "abcdef") << command;
    EXPECT_TRUE(fs::is_fifo(pipe));
    EXPECT_FALSE(fs::exists(pipe + ".part"));
    fs::remove(folder_ + "/got");
  }
}

TEST_F(CliTest, AnInterruptEndsTheWaitForAPipesReader) {
  server_.generate = [](const v1::GenerateRequest&, EventWriter*) {
    ADD_FAILURE() << "submitted";
    return Status::OK;
  };
  const std::string pipe = folder_ + "/pipe.mp4";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  support::Process process(Command({"generate", "x", "--out", pipe}), log_);
  // The main thread blocks SIGINT before there is another, and lets it through while it opens.
  const auto is_opening = [&] {
    const std::string status = ReadAll("/proc/" + std::to_string(process.pid()) + "/status");
    const size_t threads = status.find("Threads:\t"), blocked = status.find("SigBlk:\t");
    if (threads == std::string::npos || blocked == std::string::npos) return false;
    return std::stoi(status.substr(threads + 9)) > 1 &&
           (std::stoull(status.substr(blocked + 8, 16), nullptr, 16) & 1u << (SIGINT - 1)) == 0;
  };
  for (int i = 0; i < 20000 && !is_opening(); ++i) absl::SleepFor(absl::Milliseconds(1));
  process.Signal(SIGINT);
  ASSERT_TRUE(process.EndsWithin(60));
  EXPECT_EQ(process.Wait(), -SIGINT);
}

TEST_F(CliTest, AnInterruptLeavesAPipeThatTakesNothing) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(Chunk(1, 0, std::string(300'000, 'v')));
    while (out->Write(State(1, v1::RUNNING))) absl::SleepFor(absl::Milliseconds(1));
    return Status::CANCELLED;
  };
  const std::string pipe = folder_ + "/pipe.mp4";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  const int holds = fcntl(reader, F_GETPIPE_SZ);
  support::Process process(Command({"generate", "x", "--out", pipe}), log_);
  int waiting = 0;
  for (int i = 0; i < 20000 && waiting < holds; ++i) {
    absl::SleepFor(absl::Milliseconds(1));
    ASSERT_EQ(ioctl(reader, FIONREAD, &waiting), 0);
  }
  EXPECT_EQ(waiting, holds);
  process.Signal(SIGINT);
  ASSERT_TRUE(process.EndsWithin(60));
  EXPECT_EQ(process.Wait(), 130);
  EXPECT_THAT(Output(), HasSubstr("kino watch job-1"));
  close(reader);
}

TEST_F(CliTest, ATerminalGetsTheVideoAndStaysATerminal) {
  ServeVideo("abcdef");
  int ours = -1, theirs = -1;
  char name[256];
  ASSERT_EQ(openpty(&ours, &theirs, name, nullptr, nullptr), 0);
  EXPECT_EQ(Run({"download", "job-1", "--out", name}), 0) << Output();
  char got[6];
  EXPECT_EQ(read(ours, got, sizeof(got)), 6);
  EXPECT_EQ(std::string(got, 6), "abcdef");
  EXPECT_TRUE(fs::is_character_file(name));
  close(ours);
  close(theirs);
}

TEST_F(CliTest, ALinkStaysAndItsFileIsReplaced) {
  ServeVideo("abcdef");
  std::ofstream(folder_ + "/real.mp4") << "what was there";
  fs::create_symlink("real.mp4", folder_ + "/link.mp4");
  fs::create_symlink("new.mp4", folder_ + "/dangling.mp4");
  for (const auto& [link, file] :
       {std::pair("/link.mp4", "/real.mp4"), {"/dangling.mp4", "/new.mp4"}}) {
    EXPECT_EQ(Run({"generate", "x", "--out", folder_ + link}), 0) << Output();
    EXPECT_TRUE(fs::is_symlink(folder_ + link));
    EXPECT_FALSE(fs::is_symlink(folder_ + file));
    EXPECT_EQ(ReadAll(folder_ + file), "abcdef");
  }
  // A failed one leaves it as it was.
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(Chunk(1, 0, "xyz"));
    out->Write(Finished(v1::FAILED));
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "x", "--out", folder_ + "/link.mp4"}), 1);
  EXPECT_EQ(ReadAll(folder_ + "/real.mp4"), "abcdef");
}

TEST_F(CliTest, AFolderIsRefusedBeforeAnythingIsSubmittedOrUploaded) {
  server_.generate = [](const v1::GenerateRequest&, EventWriter*) {
    ADD_FAILURE() << "submitted";
    return Status::OK;
  };
  server_.watch = [](const v1::WatchJobRequest&, EventWriter*) {
    ADD_FAILURE() << "watched";
    return Status::OK;
  };
  std::ofstream(folder_ + "/a.png") << "picture";
  EXPECT_EQ(Run({"generate", "x", "--image", folder_ + "/a.png", "--out", folder_}), 4);
  EXPECT_THAT(Output(), HasSubstr("'" + folder_ + "': it is a folder"));
  EXPECT_EQ(server_.uploaded, "");
  EXPECT_EQ(Run({"watch", "job-1", "--out", folder_}), 4);
  EXPECT_EQ(Run({"download", "job-1", "--out", folder_}), 4);
  EXPECT_THAT(Output(), HasSubstr("it is a folder"));
}

TEST_F(CliTest, ADashIsStandardOutputAndWordsGoElsewhere) {
  ServeVideo("abcdef");
  const std::string out = folder_ + "/stdout", err = folder_ + "/stderr";
  for (const std::string name : {"-", "/dev/stdout"}) {
    for (const std::string command :
         {"generate x", "generate x --json", "download job-1", "download job-1 --json"}) {
      EXPECT_EQ(RunShell(command + " --out " + name, "> " + out + " 2> " + err), 0) << ReadAll(err);
      EXPECT_EQ(ReadAll(out), "abcdef") << command;
      const bool is_json = command.find("--json") != std::string::npos;
      EXPECT_THAT(ReadAll(err), HasSubstr(is_json ? "\"sha256\"" : name + "\n"));
    }
  }
  EXPECT_FALSE(fs::exists("-") || fs::exists("-.part"));
  EXPECT_EQ(RunShell("download job-1 --out -", ">&-"), 4);
  EXPECT_EQ(RunShell("download job-1 --out -", "> /dev/full"), 4);
  EXPECT_THAT(Output(), HasSubstr("No space left"));
}

TEST_F(CliTest, AStreamGoesOnWithAnAttemptOfTheSameBytesAndNoOther) {
  std::string second = "abcdef";
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(Chunk(1, 0, "abcd"));
    out->Write(Chunk(2, 0, second.substr(0, 1)));
    out->Write(Chunk(3, 0, second.substr(0, 2)));  // ended before it had given all again
    out->Write(Chunk(3, 2, second.substr(2)));
    out->Write(Finished(v1::SUCCEEDED, second));
    return Status::OK;
  };
  const std::string out = folder_ + "/stdout";
  EXPECT_EQ(RunShell("generate x --out -", "> " + out), 0) << Output();
  EXPECT_EQ(ReadAll(out), "abcdef");
  for (const std::string other : {"abXdef", "abc"}) {
    second = other;
    EXPECT_EQ(RunShell("generate x --out -", "> " + out), 4);
    EXPECT_EQ(ReadAll(out), "abcd");
  }
}

TEST_F(CliTest, StandardOutputThatCannotBeWrittenIsNotDone) {
  ServeVideo("abcdef");
  server_.watch = [&](const v1::WatchJobRequest&, EventWriter* out) {
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  std::ofstream(folder_ + "/a.png") << "picture";
  const std::string commands[] = {"submit x",
                                  "submit x --json",
                                  "jobs",
                                  "jobs --json",
                                  "show job-1",
                                  "cancel job-1",
                                  "models",
                                  "models --json",
                                  "load demo",
                                  "watch job-1",
                                  "watch job-1 --json",
                                  "upload " + folder_ + "/a.png",
                                  "generate x --out " + out_,
                                  "generate x --json --out " + out_,
                                  "download job-1 --out " + out_,
                                  "submit --help",
                                  "jobs --help",
                                  "--help",
                                  "--version"};
  for (const std::string& command : commands) {
    for (const char* redirection : {"> /dev/full", ">&-"}) {
      server_.uploaded.clear();
      EXPECT_EQ(RunShell(command, redirection), 4) << command << redirection << Output();
      EXPECT_THAT(Output(), HasSubstr("standard output cannot be written")) << command;
      if (command.find("--json") != std::string::npos) {
        EXPECT_EQ(Output().find("{\"error\":{"), 0u) << command << Output();
        EXPECT_EQ(Output().find('\n'), Output().size() - 1) << "told once: " << Output();
      }
    }
    server_.uploaded.clear();
    EXPECT_EQ(RunShell(command, ""), 0) << command << Output();
  }
  for (const char* redirection : {"> /dev/full", ">&-", "| true"}) {
    EXPECT_NE(RunShell("submit x", redirection, "set -o pipefail;"), 0) << redirection;
    EXPECT_THAT(Output(), HasSubstr("the job is job-1")) << redirection;
    server_.uploaded.clear();
    EXPECT_NE(RunShell("upload " + folder_ + "/a.png", redirection, "set -o pipefail;"), 0);
    EXPECT_THAT(Output(), HasSubstr("the asset is asset-1")) << redirection;
  }
  // A job whose events nobody can read goes on, and its id is told.
  EXPECT_EQ(RunShell("generate x --json --quiet --out " + out_, "> /dev/full"), 4);
  EXPECT_THAT(Output(), HasSubstr("\"job\":\"job-1\""));
}

TEST_F(CliTest, APipeIsUploadedReadOnce) {
  const std::string bytes(2'500'000, 'p');
  std::ofstream(folder_ + "/a.png") << bytes;
  for (const auto& [file, redirection] : {std::pair("<(cat " + folder_ + "/a.png)", std::string()),
                                          {"-", "< " + folder_ + "/a.png"},
                                          {"-", "< <(cat " + folder_ + "/a.png)"}}) {
    server_.uploaded.clear();
    EXPECT_EQ(RunShell("upload " + file, redirection), 0) << Output();
    EXPECT_EQ(server_.uploaded, bytes);
    server_.uploaded.clear();
    EXPECT_EQ(RunShell("submit x --image " + file, redirection), 0) << Output();
    EXPECT_EQ(server_.uploaded, bytes);
  }
  EXPECT_EQ(RunShell("upload -", "<&-"), 4);
  EXPECT_THAT(Output(), HasSubstr("cannot be read"));
  EXPECT_EQ(RunShell("upload " + folder_, ""), 4);
}

TEST_F(CliTest, AFilesNameOfOtherBytesIsShownWithoutThem) {
  const std::string path = folder_ + "/caf\xe9.png";
  std::ofstream(path) << "picture";
  EXPECT_EQ(Run({"upload", path}), 0) << Output();
  EXPECT_EQ(server_.display_name, "caf\xef\xbf\xbd.png");
}

TEST_F(CliTest, ARequestComesFromStandardInputOrAPipe) {
  for (const auto& [file, redirection] :
       {std::pair("-", "<<< '{\"prompt\": \"a star\", \"seed\": \"7\"}'"),
        {"<(echo '{\"prompt\": \"a star\", \"seed\": 7}')", ""}}) {
    EXPECT_EQ(RunShell(std::string("submit --height 64 --request ") + file, redirection), 0)
        << Output();
    EXPECT_EQ(server_.submitted.request().prompt(), "a star");
    EXPECT_EQ(server_.submitted.request().seed(), 7u);
    EXPECT_EQ(server_.submitted.request().height(), 64);
  }
  EXPECT_EQ(RunShell("submit --request -", "< /dev/null"), 2);
  EXPECT_THAT(Output(), HasSubstr("--request: '-' cannot be read: it is empty"));
  EXPECT_EQ(RunShell("submit --request -", "<&-"), 2);
}

}  // namespace
}  // namespace kino::cli
