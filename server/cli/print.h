// What the CLI shows: a progress bar on a terminal or plain lines elsewhere, jobs and models as
// tables, or one JSON object a line with --json. One thread at a time.
#pragma once

#include <iostream>
#include <string>

#include "google/protobuf/message.h"
#include "kino/v1/models.pb.h"
#include "kino/v1/video.pb.h"

namespace kino::cli {

// One line of JSON.
void PrintJson(const google::protobuf::Message& message, std::ostream& out = std::cout);
void PrintJobHeader();
void PrintJobRow(const v1::Job& job);
void PrintJob(const v1::Job& job);
void PrintModelHeader();
void PrintModelRow(const v1::Model& model);
void PrintModel(const v1::Model& model);
// "denoise 12/25", "3 jobs ahead", ...
std::string Describe(const v1::Progress& progress);

// Standard error: a bar that is redrawn on a terminal; elsewhere a line for each new stage and
// tenth.
class ProgressView {
 public:
  explicit ProgressView(bool is_terminal) : is_terminal_(is_terminal) {}
  ~ProgressView() { Clear(); }
  void Show(const v1::Progress& progress);
  void Say(const std::string& line);
  void Clear();

 private:
  const bool is_terminal_;
  bool is_drawn_ = false;
  std::string last_line_key_;
};

}  // namespace kino::cli
