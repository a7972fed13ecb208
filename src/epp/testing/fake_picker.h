#pragma once
// FakePicker: a picker::Picker that does as it is told and writes down what it was asked; the tests' and the fuzzer's double.
// FakeCall: a net::GrpcCall without a network.
#include <deque>
#include <string>
#include <vector>

#include "net/grpc.h"
#include "picker/picker.h"

namespace baton::epp {

struct Script {
  picker::Choice choice;
  std::optional<picker::Refusal> refuses, refuses_feed, no_endpoint;
  std::string any = "10.0.0.9:8000";
  size_t body_bytes_max = SIZE_MAX;
  bool holds = false;  // decide() waits for release()
  bool wants_answer = true;
  std::string new_body;  // what a rewrite made of the request
  std::string from, to;  // in the answer, each `from` becomes `to`
  std::vector<std::pair<std::string, std::string>> answer_headers;
  bool ready = true;
};

class FakePicker final : public picker::Picker {
 public:
  explicit FakePicker(Script script) : script(std::move(script)) {}

  class FakeFlight final : public picker::Flight {
   public:
    FakeFlight(FakePicker& owner, const picker::Head& head) : owner_(owner) {
      owner_.says(cat("begin ", head.method, " ", head.path));
      owner_.flight = this;
    }
    ~FakeFlight() override {
      owner_.says("gone");
      owner_.flight = nullptr;
    }
    std::optional<picker::Refusal> feed(std::string_view bytes) override {
      if (owner_.script.refuses_feed) return owner_.script.refuses_feed;
      if (body_.size() + bytes.size() > owner_.script.body_bytes_max) {
        return picker::Refusal{.status = 413, .message = "the body is too large", .drop_reason = "", .retry_after_s = 0};
      }
      body_ += bytes;
      return std::nullopt;
    }
    void rest_unseen() override { owner_.says("rest unseen"); }
    void decide(picker::Subset subset, Done done) override {
      std::string text = subset.given ? " of" : "";
      for (const std::string& endpoint : subset.endpoints) text += " " + endpoint;
      owner_.says(cat("decide ", body_.size(), " bytes", text));
      if (!owner_.script.new_body.empty()) body_ = owner_.script.new_body, changed_ = true;
      done_ = std::move(done);
      if (!owner_.script.holds) release();
    }
    bool waiting() const { return done_ != nullptr; }
    void release() {
      auto done = std::move(done_);
      if (owner_.script.refuses)
        done(std::unexpected(*owner_.script.refuses));
      else
        done(&owner_.script.choice);
    }
    void evict(picker::Refusal refusal) {
      if (evict_) evict_(std::move(refusal));
    }
    std::expected<const picker::Choice*, picker::Refusal> repick(bool) override { return &owner_.script.choice; }
    std::string& body() override { return body_; }
    bool body_changed() const override { return changed_; }
    std::string_view model() const override { return "m"; }
    bool stream() const override { return true; }
    int64_t prompt_tokens() const override { return 0; }
    int64_t output_tokens() const override { return 0; }
    void answer_head(int status, std::string_view content_type) override {
      owner_.says(cat("answer ", status, content_type.empty() ? "" : " ", content_type));
    }
    std::string_view answer_bytes(std::string_view bytes, bool last) override {
      owner_.says(cat("answer bytes ", bytes.size(), last ? " last" : ""));
      if (owner_.script.from.empty()) return bytes;
      out_ = bytes;
      for (size_t at = 0; (at = out_.find(owner_.script.from, at)) != std::string::npos; at += owner_.script.to.size()) {
        out_.replace(at, owner_.script.from.size(), owner_.script.to);
      }
      return out_ == bytes ? bytes : std::string_view(out_);
    }
    bool wants_answer() const override { return owner_.script.wants_answer; }
    std::span<const std::pair<std::string, std::string>> answer_headers() const override { return owner_.script.answer_headers; }
    void set_served(std::string_view endpoint) override { owner_.says(cat("served ", endpoint)); }
    void on_evict(std::move_only_function<void(picker::Refusal)> f) override { evict_ = std::move(f); }
    void finish(int status) override { owner_.says(cat("finish ", status)); }

   private:
    FakePicker& owner_;
    std::string body_, out_;
    bool changed_ = false;
    Done done_;
    std::move_only_function<void(picker::Refusal)> evict_;
  };

  Result<> start() override { return {}; }
  void stop() override {}
  void set_plan(std::shared_ptr<const route::Plan>) override {}
  void set_cluster(std::shared_ptr<const discovery::ClusterState>) override {}
  std::unique_ptr<picker::Flight> begin(const picker::Head& head) override { return std::make_unique<FakeFlight>(*this, head); }
  std::expected<std::string, picker::Refusal> any_endpoint(const picker::Subset& subset) override {
    says(cat("any endpoint", subset.given ? " of" : "", subset.endpoints.empty() ? "" : " " + subset.endpoints.front()));
    if (script.no_endpoint) return std::unexpected(*script.no_endpoint);
    return script.any;
  }
  bool ready() const override { return script.ready; }
  bool can_serve() const override { return script.ready; }
  bool knows_model(std::string_view) const override { return true; }
  std::vector<std::string> model_cards() const override { return {}; }
  void report_down(std::string_view) override {}
  void refresh_metrics() override {}
  std::string debug_json() const override { return "{}"; }

  void says(std::string line) { said.push_back(std::move(line)); }
  Script script;
  std::deque<std::string> said;  // what was asked of it, in order
  FakeFlight* flight = nullptr;  // the last one, while it lives
};

class FakeCall final : public net::GrpcCall {
 public:
  std::string_view path() const override { return "/envoy.service.ext_proc.v3.ExternalProcessor/Process"; }
  std::string_view peer() const override { return "test"; }
  void write_pieces(std::span<const std::string_view> pieces) override {
    BATON_CHECK(!finished);
    std::string& message = messages.emplace_back();
    for (std::string_view piece : pieces) message += piece;
    if (proxy_waits) unsent += message.size();
  }
  void finish(Code code, std::string_view message) override {
    BATON_CHECK(!finished);
    finished = code;
    finish_message = message;
  }
  size_t unsent_bytes() const override { return unsent; }
  void want_room(size_t unsent_bytes_max) override {
    BATON_CHECK(unsent > unsent_bytes_max);
    room = unsent_bytes_max;
  }
  // The proxy takes all that is queued; true if that is what the handler waited for.
  bool take_all() {
    unsent = 0;
    return std::exchange(room, std::nullopt).has_value();
  }
  std::function<void(std::move_only_function<void()>)> poster() override {
    return [](std::move_only_function<void()> f) { f(); };
  }
  std::deque<std::string> messages;
  bool proxy_waits = false;  // what is written stays unsent until take_all()
  size_t unsent = 0;
  std::optional<size_t> room;
  std::optional<Code> finished;
  std::string finish_message;
};

}  // namespace baton::epp
