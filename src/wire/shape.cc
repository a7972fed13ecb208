#include "wire/shape.h"

namespace baton::wire {
namespace {

class OpenAiShape : public Shape {
 public:
  OpenAiShape(bool chat, const GenerateFields& fields)
      : chat_(chat), include_usage_(fields.include_usage), continuous_(fields.continuous_usage) {}
  std::string whole(const Head& head, std::span<const Choice> choices, const Usage& usage,
                    std::string_view kv_transfer_params) override {
    return chat_ ? chat_response(head, choices, usage, kv_transfer_params)
                 : completion_response(head, choices, usage, kv_transfer_params);
  }
  std::string open(const Head& head, const Choice& first, const Usage& so_far) override {
    return chat_ ? sse_event(chat_chunk(head, first, Delta::kRole, continuous_ ? &so_far : nullptr)) : "";
  }
  std::string chunk(const Head& head, const Choice& part, const Usage& so_far) override {
    const Usage* usage = continuous_ ? &so_far : nullptr;
    return sse_event(chat_ ? chat_chunk(head, part, Delta::kContent, usage, !include_usage_) : completion_chunk(head, part, usage, !include_usage_));
  }
  std::string end(const Head& head, const Usage& usage) override {
    return cat(include_usage_ ? sse_event(usage_chunk(head, chat_, usage)) : "", kSseDone);
  }

 private:
  const bool chat_, include_usage_, continuous_;
};

}  // namespace

std::string Shape::open(const Head&, const Choice&, const Usage&) { return ""; }
std::string Shape::fail(const ApiError& error) { return cat(sse_event(error_json(error)), kSseDone); }
std::string Shape::error(const ApiError& error) const { return error_json(error); }

std::unique_ptr<Shape> chat_shape(const GenerateFields& fields) { return std::make_unique<OpenAiShape>(true, fields); }
std::unique_ptr<Shape> completion_shape(const GenerateFields& fields) { return std::make_unique<OpenAiShape>(false, fields); }

}  // namespace baton::wire
