// How long an upload's silence is, by a clock that a test moves.
#include "server/frontend/rpc/idle_uploads.h"

#include <gtest/gtest.h>

#include "tests/support/fake_clock.h"

namespace kino::frontend {
namespace {

constexpr absl::Duration kLimit = absl::Seconds(60);

class Party final : public SilentParty {
 public:
  void EndIfSilent(absl::Duration limit, absl::Duration now) override {
    ++looks;
    if (silence.IsLongerThan(limit, now)) ++ends;
  }
  Silence silence;
  int looks = 0, ends = 0;
};

class IdleUploadsTest : public ::testing::Test {
 protected:
  IdleUploadsTest() { idle_.Add(party_); }
  // Time passes while the looks come as they should.
  void Pass(absl::Duration duration) {
    for (absl::Duration passed; passed < duration; passed += idle_.LookInterval()) {
      clock_.Advance(idle_.LookInterval());
      idle_.Look();
    }
  }
  void Await() { party_->silence.Begin(idle_.Now()); }

  scheduler::FakeClock clock_;
  IdleUploads idle_{clock_, kLimit};
  std::shared_ptr<Party> party_ = std::make_shared<Party>();
};

TEST_F(IdleUploadsTest, OnlySilenceBeyondTheLimitCounts) {
  Pass(10 * kLimit);
  EXPECT_EQ(party_->ends, 0) << "it awaits nothing yet";
  for (int i = 0; i < 20; ++i) {
    Await();
    Pass(0.9 * kLimit);
    party_->silence.End();
    EXPECT_EQ(party_->ends, 0) << "it goes on, however long the whole takes";
    Pass(3 * kLimit);
    EXPECT_EQ(party_->ends, 0) << "the server is at work";
  }
  Await();
  Pass(kLimit);
  EXPECT_EQ(party_->ends, 0);
  Pass(absl::Seconds(2));
  EXPECT_GT(party_->ends, 0);
}

TEST_F(IdleUploadsTest, AServerThatStoodStillHasHeardNobody) {
  for (int i = 0; i < 5; ++i) {
    Await();
    Pass(0.5 * kLimit);
    clock_.Advance(absl::Hours(1));
    idle_.Look();
    EXPECT_EQ(party_->ends, 0);
    Pass(0.4 * kLimit);
    EXPECT_EQ(party_->ends, 0);
  }
  // And no more time than that is given.
  Pass(0.2 * kLimit);
  EXPECT_GT(party_->ends, 0);
}

TEST_F(IdleUploadsTest, AWallClockThatJumpsEndsNothing) {
  Await();
  clock_.JumpWall(absl::Hours(5));
  idle_.Look();
  EXPECT_EQ(party_->ends, 0);
}

TEST_F(IdleUploadsTest, WhatIsGoneIsNotLookedAt) {
  std::weak_ptr<Party> gone = party_;
  party_.reset();
  EXPECT_TRUE(gone.expired());
  idle_.Look();
  auto other = std::make_shared<Party>();
  idle_.Add(other);
  idle_.Look();
  EXPECT_EQ(other->looks, 1);
}

TEST(IdleUploadsInterval, LooksComeOftenEnough) {
  scheduler::FakeClock clock;
  for (const absl::Duration limit : {absl::Milliseconds(100), absl::Seconds(60), absl::Hours(24)})
    EXPECT_LE(IdleUploads(clock, limit).LookInterval(), limit / 4);
  EXPECT_EQ(IdleUploads(clock, absl::Hours(24)).LookInterval(), absl::Seconds(1));
}

}  // namespace
}  // namespace kino::frontend
