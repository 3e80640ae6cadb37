// Early returns on absl::Status, and nothing else. Errors name the thing, what was expected and
// what was got.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// KINO_RETURN_IF_ERROR(expr): returns expr's status from the enclosing function unless it is OK.
#define KINO_RETURN_IF_ERROR(expr)               \
  do {                                           \
    ::absl::Status kino_status_ = (expr);        \
    if (!kino_status_.ok()) return kino_status_; \
  } while (false)

#define KINO_CONCAT_INNER_(a, b) a##b
#define KINO_CONCAT_(a, b) KINO_CONCAT_INNER_(a, b)

// KINO_ASSIGN_OR_RETURN(lhs, expr): lhs = *expr, or returns expr's status.
#define KINO_ASSIGN_OR_RETURN(lhs, expr) \
  KINO_ASSIGN_OR_RETURN_(KINO_CONCAT_(kino_statusor_, __LINE__), lhs, expr)
#define KINO_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                           \
  if (!tmp.ok()) return tmp.status();          \
  lhs = *std::move(tmp)
