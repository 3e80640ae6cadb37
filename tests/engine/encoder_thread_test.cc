#include "engine/encoder_thread.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>
#include <vector>

namespace kino::engine {
namespace {

constexpr int kSide = 16;

// [count, kSide, kSide, 3], of other pixels for each seed.
at::Tensor Frames(int count, int seed) {
  return at::arange(count * kSide * kSide * 3)
      .mul_(seed + 1)
      .remainder_(251)
      .to(at::kByte)
      .reshape({count, kSide, kSide, 3});
}

std::unique_ptr<Mp4Writer> Writer(ByteSink sink) {
  auto writer = Mp4Writer::Create({.width = kSide, .height = kSide, .fragment_frames = 4}, sink);
  EXPECT_TRUE(writer.ok()) << writer.status();
  return *std::move(writer);
}

TEST(EncoderThread, WritesWhatTheWriterAloneWrites) {
  std::string alone, threaded;
  const auto into = [](std::string* out) {
    return [out](std::string_view bytes) {
      out->append(bytes);
      return absl::OkStatus();
    };
  };
  const std::unique_ptr<Mp4Writer> writer = Writer(into(&alone));
  EncoderThread encoder(Writer(into(&threaded)));
  for (int chunk = 0; chunk < 9; ++chunk) {
    const at::Tensor frames = Frames(3, chunk);
    for (int i = 0; i < 3; ++i)
      ASSERT_TRUE(writer->AddFrame(frames[i].const_data_ptr<uint8_t>()).ok());
    ASSERT_TRUE(encoder.Add(frames).ok());
  }
  ASSERT_TRUE(writer->Finish().ok());
  ASSERT_TRUE(encoder.Finish().ok());
  EXPECT_FALSE(alone.empty());
  EXPECT_EQ(threaded, alone);
}

// The sink stands still until every chunk that may be held has been added: an Add that waited for
// the encoder would never come back. The chunk that has to wait is let in by the sink.
TEST(EncoderThread, HoldsSoManyChunksAndNoMore) {
  std::promise<void> gate;
  std::shared_future<void> opened = gate.get_future();
  std::atomic<bool> has_head = false;
  EncoderThread encoder(Writer([&](std::string_view) {
    if (has_head.exchange(true)) opened.wait();
    return absl::OkStatus();
  }));
  std::atomic<int> alive = 0, most = 0;
  const auto counted = [&](int seed) {
    auto* bytes = new at::Tensor(Frames(4, seed));
    const int now = ++alive;
    most = std::max(most.load(), now);
    return at::from_blob(
        bytes->mutable_data_ptr(), bytes->sizes(),
        [bytes, &alive](void*) {
          delete bytes;
          --alive;
        },
        at::kByte);
  };
  for (size_t i = 0; i < EncoderThread::kMaxChunks; ++i)
    ASSERT_TRUE(encoder.Add(counted(static_cast<int>(i))).ok());
  EXPECT_EQ(alive, static_cast<int>(EncoderThread::kMaxChunks));
  gate.set_value();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(encoder.Add(counted(i)).ok());
  ASSERT_TRUE(encoder.Finish().ok());
  EXPECT_EQ(alive, 0);
  // Those that are held, and the one that waits to be.
  EXPECT_LE(most, static_cast<int>(EncoderThread::kMaxChunks) + 1);
}

TEST(EncoderThread, AnErrorOfTheSinkComesBackAndLasts) {
  int calls = 0;
  EncoderThread encoder(Writer([&](std::string_view) {
    return ++calls < 3 ? absl::OkStatus() : absl::ResourceExhaustedError("the disk is full");
  }));
  absl::Status status;
  for (int i = 0; i < 20 && status.ok(); ++i) status = encoder.Add(Frames(4, i));
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_TRUE(absl::IsResourceExhausted(encoder.Add(Frames(1, 0))));
  EXPECT_TRUE(absl::IsResourceExhausted(encoder.Finish()));
  EXPECT_EQ(calls, 3);
}

TEST(EncoderThread, AnErrorOfTheLastFragmentComesFromFinish) {
  int calls = 0;
  EncoderThread encoder(Writer([&](std::string_view) {
    return ++calls < 2 ? absl::OkStatus() : absl::DataLossError("gone");
  }));
  ASSERT_TRUE(encoder.Add(Frames(1, 0)).ok());
  EXPECT_EQ(encoder.Finish().message(), "gone");
}

TEST(EncoderThread, NoFramesAreAnError) {
  EncoderThread encoder(Writer([](std::string_view) { return absl::OkStatus(); }));
  EXPECT_TRUE(absl::IsFailedPrecondition(encoder.Finish()));
}

// The sink is not called behind the destructor, which does not wait for an end of the file.
TEST(EncoderThread, EndsWhenItIsDestroyed) {
  std::promise<void> begun, gate;
  std::atomic<int> calls = 0;
  std::atomic<bool> is_gone = false;
  auto encoder = std::make_unique<EncoderThread>(Writer([&](std::string_view) {
    EXPECT_FALSE(is_gone);
    if (++calls == 2) {
      begun.set_value();
      gate.get_future().wait();
    }
    return absl::OkStatus();
  }));
  ASSERT_TRUE(encoder->Add(Frames(40, 0)).ok());
  begun.get_future().wait();
  std::thread destroyer([&] {
    encoder.reset();
    is_gone = true;
  });
  gate.set_value();
  destroyer.join();
  EXPECT_LE(calls, 11) << "40 frames are ten fragments behind the head";
}

TEST(EncoderThread, EndsWhenNothingWasAdded) {
  EncoderThread encoder(Writer([](std::string_view) { return absl::OkStatus(); }));
}

}  // namespace
}  // namespace kino::engine
