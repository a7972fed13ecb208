#pragma once
// Asker: greedy completions from a running stack, whole and streamed, as `baton verify` asks for them. One I/O thread.
#include <string>
#include <string_view>

#include "net/http.h"
#include "stack/chat.h"
#include "stack/verify.h"

namespace baton::stack {

// Words without sense and a number that was never there before: no cache knows it.
std::string fresh_prompt(int words);
std::string text_of(std::string_view completion);  // choices[0].text; "" if there is none

struct Streamed {
  int status = 0;
  std::string text;   // of all events; the body, if status is not 200
  int events = 0, errors = 0;
  bool done = false;  // [DONE] was the last
  std::string error;  // message of the first error event
};

class Asker {
 public:
  Asker(const VerifyConfig& config, Url url) : config_(config), url_(std::move(url)), model_(config.model) {}

  const std::string& model() const { return model_; }
  void use_model(std::string name) { model_ = std::move(name); }
  net::Task<Result<net::Response>> get(std::string target);
  net::Task<Result<net::Response>> post(std::string target, std::string body);
  net::Task<Result<net::Response>> complete(std::string_view prompt, int max_tokens);
  net::Task<Result<Streamed>> stream(std::string_view prompt, int max_tokens);  // kDataLoss: broken off; kInternal: no SSE

 private:
  net::Call call(std::string method, std::string target) const;
  std::string body(std::string_view prompt, int max_tokens, bool stream) const;

  const VerifyConfig& config_;
  Url url_;
  std::string model_;
  net::Client client_;
};

}  // namespace baton::stack
