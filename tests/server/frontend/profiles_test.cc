// What the frontend keeps of the workers' answers, with a worker that answers when the test says.
#include "server/frontend/profiles/profiles.h"

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"

namespace kino::frontend {
namespace {

struct Question {
  std::string kind;
  v1::ProfileQuery query;
  Profiles::Done done;
};

class ProfilesTest : public ::testing::Test {
 protected:
  void Make(ProfilesOptions options = {}) {
    options.now = [this] { return now_; };
    profiles_ = std::make_unique<Profiles>(
        std::move(options),
        [this](const std::string& kind, v1::ProfileQuery query, Profiles::Done done) {
          if (!refusal_.ok()) {
            done(refusal_);
          } else if (answers_at_once_) {
            done(Answer(query));
          } else {
            asked_.push_back({kind, std::move(query), std::move(done)});
          }
          ++questions_;
        });
  }
  static v1::RunProfile Answer(const v1::ProfileQuery& query) {
    v1::RunProfile profile;
    if (!query.without_places()) {
      v1::ComponentPlaces& places = *profile.add_places();
      places.set_component("vae");
      v1::WeightPlace& weight = *places.add_weights();
      weight.set_name("w");
      weight.set_dtype("float32");
    }
    for (const v1::Plan& variant : query.variants()) {
      v1::VariantPhases& phases = *profile.add_variants();
      *phases.mutable_variant() = variant;
      v1::PhaseNeed& need = *phases.add_phases();
      need.set_stage(v1::DECODE);
      need.set_component("vae");
      need.set_rows(query.request().height());
    }
    return profile;
  }
  static engine::Request RequestOf(int height) {
    engine::Request request;
    request.prompt = "a boat";
    request.height = height;
    return request;
  }
  // Asks without waiting: what is not known is asked for, and UNAVAILABLE.
  absl::StatusOr<engine::RunProfile> Find(const engine::Request& request,
                                          const std::string& tenant = "t",
                                          const std::string& device = "cpu",
                                          const std::vector<engine::PhaseVariant>& variants = {
                                              engine::PhaseVariant{}}) {
    return profiles_->Find("demo", device, tenant, now_ + absl::Milliseconds(1), request, variants);
  }

  // Stands still, so that no deadline has passed when a question is asked, however busy the machine
  // is; waits go by the real clock.
  absl::Time now_ = absl::Now();
  bool answers_at_once_ = true;
  // Not OK: each question is answered by it at once.
  absl::Status refusal_;
  std::deque<Question> asked_;
  int questions_ = 0;
  std::unique_ptr<Profiles> profiles_;
};

TEST_F(ProfilesTest, WhatIsKnownIsNotAskedAgain) {
  Make();
  const auto first = Find(RequestOf(64));
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->variants.at(0).second.at(0).rows, 64);
  EXPECT_EQ(first->places->at(0).weights.at(0).name, "w");
  // What an answer does not depend on.
  engine::Request other = RequestOf(64);
  other.seed = 7;
  other.fps = 12.5;
  other.prompt = "a ship";
  other.plan.offload = "leaf";
  EXPECT_TRUE(Find(other, "another tenant").ok());
  EXPECT_EQ(questions_, 1);
  EXPECT_TRUE(
      profiles_
          ->Find("demo", "cpu", "t", absl::InfinitePast(), RequestOf(64), {engine::PhaseVariant{}})
          .ok())
      << "what is known needs no time";
}

TEST_F(ProfilesTest, WhatAnAnswerDependsOnIsAskedForItself) {
  Make();
  EXPECT_TRUE(Find(RequestOf(64)).ok());
  EXPECT_EQ(Find(RequestOf(96))->variants.at(0).second.at(0).rows, 96);
  engine::Request longer = RequestOf(64);
  longer.prompt = std::string(1000, 'x');
  EXPECT_TRUE(Find(longer).ok());
  EXPECT_TRUE(Find(RequestOf(64), "t", "cpu",
                   {engine::PhaseVariant{.vae_tiling = {}, .chunk_feed_forward = 8}})
                  .ok());
  EXPECT_TRUE(Find(RequestOf(64), "t", "cuda:0").ok());
  EXPECT_EQ(questions_, 5);
  EXPECT_TRUE(Find(RequestOf(64), "t", "cuda:1").ok());
  EXPECT_EQ(questions_, 5) << "devices of one kind are alike";
}

TEST_F(ProfilesTest, WeightsAreToldOnceForEachKindOfDevice) {
  answers_at_once_ = false;
  Make({.max_pending_per_tenant = 10});
  const auto ask = [&](const engine::Request& request, const std::string& device) {
    EXPECT_FALSE(Find(request, "t", device).ok());
    Question question = std::move(asked_.back());
    asked_.pop_back();
    question.done(Answer(question.query));
    EXPECT_EQ(question.kind, device.substr(0, device.find(':')));
    return question.query.without_places();
  };
  EXPECT_FALSE(ask(RequestOf(64), "cpu"));
  EXPECT_TRUE(ask(RequestOf(96), "cpu"));
  EXPECT_NE(Find(RequestOf(96))->places, nullptr);
  EXPECT_FALSE(ask(RequestOf(64), "cuda:0"));
}

TEST_F(ProfilesTest, AnAnswerThatComesLateIsThereForTheNextQuestion) {
  answers_at_once_ = false;
  Make();
  const auto early = Find(RequestOf(64));
  EXPECT_TRUE(absl::IsUnavailable(early.status())) << early.status();
  EXPECT_FALSE(Find(RequestOf(64)).ok());
  EXPECT_EQ(questions_, 1) << "one question is open";
  asked_.front().done(Answer(asked_.front().query));
  EXPECT_TRUE(Find(RequestOf(64)).ok());
  EXPECT_EQ(questions_, 1);
}

TEST_F(ProfilesTest, WhoWaitsIsWokenByTheAnswer) {
  answers_at_once_ = false;
  Make();
  EXPECT_FALSE(Find(RequestOf(64)).ok());  // asked
  std::thread worker([this] { asked_.front().done(Answer(asked_.front().query)); });
  EXPECT_TRUE(profiles_
                  ->Find("demo", "cpu", "t", absl::Now() + absl::Seconds(60), RequestOf(64),
                         {engine::PhaseVariant{}})
                  .ok());
  worker.join();
}

TEST_F(ProfilesTest, OpenQuestionsAreBoundedForEachTenant) {
  answers_at_once_ = false;
  Make({.max_pending_per_tenant = 2});
  for (int i = 1; i <= 4; ++i) EXPECT_FALSE(Find(RequestOf(32 * i)).ok());
  EXPECT_EQ(questions_, 2);
  EXPECT_NE(Find(RequestOf(320)).status().message().find("2 other questions"), std::string::npos);
  EXPECT_FALSE(Find(RequestOf(96), "another").ok());
  EXPECT_EQ(questions_, 3);
  // Answered, and failed: both make room.
  asked_.at(0).done(Answer(asked_.at(0).query));
  asked_.at(1).done(absl::InternalError("no trace"));
  EXPECT_FALSE(Find(RequestOf(128)).ok());
  EXPECT_FALSE(Find(RequestOf(160)).ok());
  EXPECT_FALSE(Find(RequestOf(192)).ok());
  EXPECT_EQ(questions_, 5);
}

TEST_F(ProfilesTest, AnErrorIsToldAndNotKept) {
  answers_at_once_ = false;
  Make();
  EXPECT_FALSE(Find(RequestOf(64)).ok());
  // The error may be told before the next Find: that one asks anew, and gets the same error.
  refusal_ = absl::NotFoundError("no such model");
  std::thread worker([late = std::move(asked_.front()), this]() mutable { late.done(refusal_); });
  const auto told = profiles_->Find("demo", "cpu", "t", absl::Now() + absl::Seconds(60),
                                    RequestOf(64), {engine::PhaseVariant{}});
  worker.join();
  EXPECT_TRUE(absl::IsUnavailable(told.status())) << told.status();
  EXPECT_EQ(profiles_->kept(), 0u);
  refusal_ = absl::OkStatus();
  answers_at_once_ = true;
  EXPECT_TRUE(Find(RequestOf(64)).ok());
}

TEST_F(ProfilesTest, AMalformedAnswerIsAnError) {
  answers_at_once_ = false;
  Make();
  EXPECT_FALSE(Find(RequestOf(64)).ok());
  v1::RunProfile broken = Answer(asked_.front().query);
  broken.mutable_variants(0)->mutable_phases(0)->set_rows(-1);
  asked_.front().done(broken);
  EXPECT_EQ(profiles_->kept(), 0u);
  // So is one without the weights that were asked for.
  EXPECT_FALSE(Find(RequestOf(64)).ok());
  v1::RunProfile bare = Answer(asked_.back().query);
  bare.clear_places();
  asked_.back().done(bare);
  EXPECT_EQ(profiles_->kept(), 0u);
}

TEST_F(ProfilesTest, TheOneUnusedForLongestGoesFirst) {
  Make({.max_profiles = 3});
  for (const int height : {32, 64, 96}) EXPECT_TRUE(Find(RequestOf(height)).ok());
  EXPECT_TRUE(Find(RequestOf(32)).ok());
  EXPECT_TRUE(Find(RequestOf(128)).ok());
  EXPECT_EQ(profiles_->kept(), 3u);
  EXPECT_EQ(questions_, 4);
  EXPECT_TRUE(Find(RequestOf(32)).ok());
  EXPECT_TRUE(Find(RequestOf(96)).ok());
  EXPECT_EQ(questions_, 4);
  EXPECT_TRUE(Find(RequestOf(64)).ok());
  EXPECT_EQ(questions_, 5);
}

TEST_F(ProfilesTest, AnswersAreBoundedInBytes) {
  Make({.max_bytes = 2000});
  for (int i = 1; i <= 50; ++i) EXPECT_TRUE(Find(RequestOf(32 * i)).ok());
  EXPECT_GE(profiles_->kept(), 1u);
  EXPECT_LE(profiles_->kept(), 10u);
}

TEST_F(ProfilesTest, AQuestionThatNobodyAnswersIsAskedAnew) {
  answers_at_once_ = false;
  Make({.max_pending_per_tenant = 1, .give_up = absl::ZeroDuration()});
  EXPECT_FALSE(Find(RequestOf(64)).ok());
  now_ += absl::Nanoseconds(1);
  EXPECT_FALSE(Find(RequestOf(64)).ok());
  EXPECT_EQ(questions_, 2);
  asked_.at(0).done(Answer(asked_.at(0).query));  // too late
  EXPECT_EQ(questions_, 2);
  asked_.at(1).done(Answer(asked_.at(1).query));
  EXPECT_TRUE(Find(RequestOf(64)).ok());
  EXPECT_EQ(questions_, 2);
  EXPECT_EQ(profiles_->kept(), 1u);
}

TEST_F(ProfilesTest, WithoutTimeNothingIsAsked) {
  Make();
  const auto told = profiles_->Find("demo", "cpu", "t", absl::InfinitePast(), RequestOf(64),
                                    {engine::PhaseVariant{}});
  EXPECT_TRUE(absl::IsUnavailable(told.status())) << told.status();
  EXPECT_EQ(questions_, 0);
}

}  // namespace
}  // namespace kino::frontend
