#pragma once
// Shape: how one HTTP API writes an answer. Whoever generates tells every shape the same things in the same order: whole() alone,
// or for a stream open() before a choice's first chunk, chunk() for each part, then end() or fail(). What comes back goes out as
// it is: JSON from whole() and error(), complete server-sent events (or "") from the others. One per request; not thread safe.
// so_far, usage: usage.cached_tokens is set only where the client is to see it.
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "wire/errors.h"
#include "wire/openai.h"
#include "wire/openai_response.h"

namespace baton::wire {

class Shape {
 public:
  virtual ~Shape() = default;
  virtual std::string whole(const Head& head, std::span<const Choice> choices, const Usage& usage,
                            std::string_view kv_transfer_params) = 0;
  virtual std::string open(const Head& head, const Choice& first, const Usage& so_far);  // first: index and prompt_token_ids
  virtual std::string chunk(const Head& head, const Choice& part, const Usage& so_far) = 0;
  virtual std::string end(const Head& head, const Usage& usage) = 0;
  virtual std::string fail(const ApiError& error);         // ends the stream
  virtual std::string error(const ApiError& error) const;  // the body of an answer that is an error

  // Made once all of the request is known, before the answer begins: what the sampling came to.
  struct Resolved {
    double temperature = 1, top_p = 1, presence_penalty = 0, frequency_penalty = 0;
    int32_t max_tokens = 0;
  };
  virtual void resolved(const Resolved&) {}
};

std::unique_ptr<Shape> chat_shape(const GenerateFields& fields);
std::unique_ptr<Shape> completion_shape(const GenerateFields& fields);

}  // namespace baton::wire
