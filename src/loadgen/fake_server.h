#pragma once
// FakeServer, for tests and benches: an OpenAI server whose every answer is max_tokens events, one each `token_ms`, and whose
// tokens are words, except that "because" is two, so that lengths in words and in tokens differ.
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "net/http.h"

namespace baton::loadgen {

class FakeServer {
 public:
  FakeServer() {
    server_ = std::make_unique<net::Server>(net::ServerOptions{}, [this]() -> net::Handler {
      return [this](net::Request& request, net::ResponseWriter& writer) { return answer(request, writer); };
    });
    if (!server_->start()) std::abort();
  }
  int port() const { return server_->port(); }
  std::atomic<int> requests{0}, running{0}, running_max{0}, fail_every{0};
  std::atomic<bool> can_tokenize{true};
  std::atomic<int> token_ms{1};
  std::mutex mutex;
  std::set<std::string> ids;
  std::map<int, int> input_lens;

 private:
  static std::vector<std::string> tokens_of(const std::string& text) {
    std::vector<std::string> out;
    std::stringstream in(text);
    for (std::string word; in >> word;) {
      if (word == "because")
        out.push_back("be"), out.push_back("+cause");
      else
        out.push_back(word);
    }
    return out;
  }
  net::Task<> answer(net::Request& request, net::ResponseWriter& writer) {
    const auto body = parse_json(request.body);
    JsonWriter w;
    if (request.path == "/v1/models") {
      (void)co_await writer.send(net::Response::json(200, R"({"object":"list","data":[{"id":"fake"}]})"));
    } else if (request.path == "/tokenize" && can_tokenize) {
      w.object().key("tokens").array();
      for (const std::string& token : tokens_of(body->find("prompt")->text)) {
        std::lock_guard lock(mutex);
        w.value(vocabulary_.emplace(token, vocabulary_.size()).first->second);
        words_[vocabulary_[token]] = token;
      }
      (void)co_await writer.send(net::Response::json(200, w.end().end().take()));
    } else if (request.path == "/detokenize" && can_tokenize) {
      std::string text;
      for (const Json& id : body->find("tokens")->items) {
        std::lock_guard lock(mutex);
        const std::string word = words_[static_cast<size_t>(*id.as_int())];
        text += word.starts_with('+') ? word.substr(1) : (text.empty() ? "" : " ") + word;
      }
      (void)co_await writer.send(net::Response::json(200, w.object().field("prompt", text).end().take()));
    } else if (request.path == "/v1/completions" || request.path == "/v1/chat/completions") {
      co_await generate(request, *body, writer);
    } else {
      (void)co_await writer.send(net::Response::json(404, "{}"));
    }
  }
  net::Task<> generate(net::Request& request, const Json& body, net::ResponseWriter& writer) {
    const int n = ++requests;
    const bool chat = request.path.find("chat") != std::string::npos;
    if (fail_every > 0 && n % fail_every == 0) {
      (void)co_await writer.send(net::Response::json(503, "{\"error\":\"overloaded\"}"));
      co_return;
    }
    const std::string prompt =
        chat ? body.find("messages")->items[0].find("content")->items[0].find("text")->text : body.find("prompt")->text;
    const auto length = static_cast<int>(tokens_of(prompt).size());
    {
      std::lock_guard lock(mutex);
      ids.insert(std::string(request.headers.get("x-request-id").value_or("")));
      ++input_lens[length];
    }
    int now = ++running;
    for (int seen = running_max; seen < now && !running_max.compare_exchange_weak(seen, now);) {
    }
    (void)co_await writer.begin(200, {{"Content-Type", "text/event-stream"}, {"x-baton-worker", "decode=a:1,prefill=b:2"}});
    const auto tokens = *body.find(chat ? "max_completion_tokens" : "max_tokens")->as_int();
    for (int64_t i = 0; i < tokens; ++i) {
      if (token_ms > 0) co_await net::sleep_for(net::Millis(token_ms));
      (void)co_await writer.write(chat ? "data: {\"choices\":[{\"delta\":{\"content\":\"w \"}}]}\n\n"
                                       : "data: {\"choices\":[{\"text\":\"w \"}]}\n\n");
    }
    --running;
    (void)co_await writer.write(cat("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":", length,
                                    ",\"completion_tokens\":", tokens, "}}\n\ndata: [DONE]\n\n"));
    (void)co_await writer.finish();
  }
  std::map<std::string, size_t> vocabulary_;
  std::map<size_t, std::string> words_;
  std::unique_ptr<net::Server> server_;
};

}  // namespace baton::loadgen
