// `kino generate`: the video, lost connections, interrupts.
#include <optional>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "tests/server/cli/cli_fixture.h"

namespace kino::cli {
namespace {

TEST_F(CliTest, GenerateWritesTheVideoAndPrintsItsName) {
  server_.generate = [&](const v1::GenerateRequest& request, EventWriter* out) {
    EXPECT_EQ(request.prompt(), "a star");
    EXPECT_EQ(request.height(), 64);
    EXPECT_FALSE(request.request_id().empty()) << "a repeated submission must not make two jobs";
    out->Write(State(1, v1::QUEUED, 0));
    v1::JobEvent progress;
    progress.mutable_progress()->set_stage(v1::DENOISE);
    progress.mutable_progress()->set_step(3);
    progress.mutable_progress()->set_total_steps(25);
    progress.mutable_progress()->set_fraction(0.5);
    out->Write(progress);
    out->Write(Chunk(1, 0, "first attempt's bytes"));
    out->Write(Chunk(2, 0, "abc"));
    out->Write(Chunk(2, 3, "def"));
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "a star", "--height", "64", "--out", out_}), 0);
  EXPECT_EQ(ReadAll(out_), "abcdef");
  EXPECT_THAT(Output(), HasSubstr("denoise 3/25"));
  EXPECT_THAT(Output(), HasSubstr(out_ + "\n"));
}

TEST_F(CliTest, ALostConnectionIsTakenUpWhereItBroke) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(State(1, v1::QUEUED, 0));
    out->Write(State(2, v1::RUNNING));
    out->Write(Chunk(1, 0, "abc"));
    return Status(grpc::StatusCode::UNAVAILABLE, "going down");
  };
  std::vector<v1::WatchJobRequest> watched;
  server_.watch = [&](const v1::WatchJobRequest& request, EventWriter* out) {
    watched.push_back(request);
    if (watched.size() == 1) {
      out->Write(Chunk(1, 3, "de"));
      return Status::OK;  // an orderly end without the last event: the server is leaving
    }
    out->Write(Chunk(1, 5, "f"));
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "x", "--out", out_}), 0);
  EXPECT_EQ(ReadAll(out_), "abcdef");
  ASSERT_EQ(watched.size(), 2u);
  EXPECT_EQ(watched[0].id(), "job-1");
  EXPECT_EQ(watched[0].after_state_number(), 2);
  EXPECT_EQ(watched[0].attempt(), 1);
  EXPECT_EQ(watched[0].offset(), 3);
  EXPECT_EQ(watched[1].offset(), 5);
}

TEST_F(CliTest, WrongBytesAreNotTakenForTheVideo) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(Chunk(1, 0, "abcdeX"));
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "x", "--out", out_}), 4);
  EXPECT_THAT(Output(), HasSubstr("SHA-256"));
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(CliTest, TheExitCodeTellsHowTheJobEnded) {
  for (const auto& [state, code] :
       {std::pair{v1::FAILED, 1}, {v1::QUARANTINED, 1}, {v1::EXPIRED, 1}, {v1::CANCELLED, 5}}) {
    server_.generate = [&, s = state](const v1::GenerateRequest&, EventWriter* out) {
      v1::JobEvent event = Finished(s);
      event.mutable_finished()->mutable_error()->set_message("the reason why");
      out->Write(event);
      return Status::OK;
    };
    EXPECT_EQ(Run({"generate", "x", "--out", out_}), code) << state;
    EXPECT_THAT(Output(), HasSubstr("the reason why"));
    EXPECT_FALSE(fs::exists(out_) || fs::exists(out_ + ".part"));
  }
}

TEST_F(CliTest, FieldViolationsArePrintedOneALine) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter*) {
    return ToGrpc(convert::InvalidRequest({{"height", "too tall"}, {"ltx.frame_rate", "is odd"}}));
  };
  EXPECT_EQ(Run({"generate", "x", "--out", out_}), 4);
  EXPECT_THAT(Output(), HasSubstr("  height: too tall\n  ltx.frame_rate: is odd\n"));
}

TEST_F(CliTest, QuotaReasonAndRetryArePrinted) {
  server_.status = ToGrpc(QueueIsFull());
  EXPECT_EQ(Run({"submit", "x"}), 4);
  EXPECT_THAT(Output(), HasSubstr("the queue is full"));
  EXPECT_THAT(Output(), HasSubstr("QUEUE_FULL"));
  EXPECT_THAT(Output(), HasSubstr("try again in 7 s"));
}

TEST_F(CliTest, AnInterruptWithoutATerminalLeavesTheJobRunning) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(State(1, v1::QUEUED, 0));
    std::ofstream(folder_ + "/reached") << "x";
    // Until the client is gone.
    while (out->Write(State(1, v1::QUEUED, 0))) absl::SleepFor(absl::Milliseconds(1));
    return Status::CANCELLED;
  };
  support::Process process(Command({"generate", "x", "--out", out_}), log_);
  for (int i = 0; i < 20000 && Output().find("job job-1") == std::string::npos; ++i) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  process.Signal(SIGINT);
  EXPECT_EQ(process.Wait(), 130);
  EXPECT_THAT(Output(), HasSubstr("kino watch job-1"));
  absl::MutexLock lock(&server_.mutex);
  EXPECT_EQ(server_.cancelled_id, "");
}

TEST_F(CliTest, AnInterruptIsJsonWithJson) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    while (out->Write(State(1, v1::QUEUED, 0))) absl::SleepFor(absl::Milliseconds(1));
    return Status::CANCELLED;
  };
  support::Process process(Command({"generate", "x", "--json", "--out", out_}), log_);
  for (int i = 0; i < 20000 && Output().find("job-1") == std::string::npos; ++i) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  process.Signal(SIGINT);
  EXPECT_EQ(process.Wait(), 130);
  const std::string last = Output().substr(Output().rfind('\n', Output().size() - 2) + 1);
  EXPECT_EQ(last.find("{\"error\":{"), 0u) << last;
  EXPECT_THAT(last, HasSubstr(R"("reason":"INTERRUPTED")"));
  EXPECT_THAT(last, HasSubstr(R"("job":"job-1")"));
}

TEST_F(CliTest, ALostConnectionIsNoErrorWithJson) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(State(1, v1::QUEUED, 0));
    return Status(grpc::StatusCode::UNAVAILABLE, "going down");
  };
  server_.watch = [&](const v1::WatchJobRequest&, EventWriter* out) {
    out->Write(Chunk(1, 0, "abcdef"));
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(RunShell("generate x --json --out " + out_, "2>&1 >/dev/null"), 0);
  EXPECT_EQ(Output(), "");
}

class InterruptTest : public CliTest {
 protected:
  // Before the program starts, what it will find.
  void SetUp() override {
    server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
      while (out->Write(State(1, v1::RUNNING))) absl::SleepFor(absl::Milliseconds(1));
      return Status::CANCELLED;
    };
    server_.watch = [&](const v1::WatchJobRequest& request, EventWriter* out) {
      EXPECT_EQ(request.after_state_number(), 1);
      out->Write(server_.cancelled_id.empty() ? Finished(v1::SUCCEEDED) : Finished(v1::CANCELLED));
      return Status::OK;
    };
    terminal_.emplace(Command({"generate", "x", "--out", out_}));
    EXPECT_TRUE(terminal_->AwaitText("job job-1"));
    terminal_->Type("\x03");
    EXPECT_TRUE(terminal_->AwaitText("[c]ancel"));
  }
  std::optional<Terminal> terminal_;
};

TEST_F(InterruptTest, CancelEndsTheJob) {
  terminal_->Type("what\nc\n");
  EXPECT_EQ(terminal_->Wait(), 5);
  EXPECT_EQ(server_.cancelled_id, "job-1");
}

TEST_F(InterruptTest, LeaveLeavesItRunning) {
  terminal_->Type("l\n");
  EXPECT_TRUE(terminal_->AwaitText("kino watch job-1"));
  EXPECT_EQ(terminal_->Wait(), 130);
  EXPECT_EQ(server_.cancelled_id, "");
}

TEST_F(InterruptTest, GoOnWatchesOn) {
  terminal_->Type("g\n");
  EXPECT_EQ(terminal_->Wait(), 0);
  EXPECT_EQ(server_.cancelled_id, "");
}

TEST_F(InterruptTest, ASecondInterruptLeaves) {
  terminal_->Type("\x03");
  EXPECT_EQ(terminal_->Wait(), 130);
}

TEST_F(CliTest, WatchWithoutAFileAsksForNoVideo) {
  server_.watch = [&](const v1::WatchJobRequest& request, EventWriter* out) {
    EXPECT_TRUE(request.no_video());
    EXPECT_EQ(request.id(), "job-1");
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(Run({"watch", "job-1"}), 0);
  EXPECT_EQ(Output(), "SUCCEEDED\n");
}

TEST_F(CliTest, JsonIsOneObjectALineWithoutVideoBytes) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(State(1, v1::QUEUED, 0));
    out->Write(Chunk(1, 0, "abcdef"));
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "x", "--json", "--out", out_}), 0);
  std::istringstream lines(Output());
  std::string line;
  std::getline(lines, line);
  EXPECT_THAT(line, HasSubstr(R"("state_change":{"number":"1","state":"QUEUED")"));
  std::getline(lines, line);
  EXPECT_THAT(line, HasSubstr(R"("finished":{"id":"job-1","state":"SUCCEEDED")"));
  EXPECT_FALSE(std::getline(lines, line));
}

TEST_F(CliTest, DownloadResumesByOffset) {
  *server_.job.mutable_artifact() = Finished(v1::SUCCEEDED, "abcdef").finished().artifact();
  server_.download = [](int64_t offset, grpc::ServerWriter<v1::DownloadVideoResponse>* out) {
    const std::string all = "abcdef";
    v1::DownloadVideoResponse piece;
    piece.set_offset(offset);
    piece.set_data(all.substr(static_cast<size_t>(offset), 2));
    out->Write(piece);
    return offset < 4 ? Status(grpc::StatusCode::UNAVAILABLE, "dropped") : Status::OK;
  };
  EXPECT_EQ(Run({"download", "job-1", "--out", out_}), 0);
  EXPECT_EQ(ReadAll(out_), "abcdef");
}

TEST_F(CliTest, DownloadOfAJobWithoutVideoIsRefused) {
  EXPECT_EQ(Run({"download", "job-1", "--out", out_}), 4);
  EXPECT_THAT(Output(), HasSubstr("has no video"));
}

}  // namespace
}  // namespace kino::cli
