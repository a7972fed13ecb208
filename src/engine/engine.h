#pragma once
// Engine: one model server: weights, KV pool, step thread, transfer node and HTTP server, wired and owned in one place.
// start() blocks until the model is loaded and the port listens. The caller ends it with stop() (SIGTERM: drains first) or drop.
// Threads: step thread, I/O threads, transfer thread, the model's workers. port(), alive() and stop() may be called from any
// thread.
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "engine/config.h"
#include "engine/ranks.h"
#include "model/model.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace baton::engine {

// What start() loads from config.model; tests bring their own.
struct EngineParts {
  std::string tokenizer_config_json{};  // "" = {}
  std::unique_ptr<Ranks> ranks;  // of a tensor-parallel model; outlives it
  std::unique_ptr<model::Model> model;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::optional<text::ChatTemplate> chat_template;
};
Result<EngineParts> load_parts(const EngineConfig& config, std::function<void(double)> progress);

class Engine {
 public:
  static Result<std::unique_ptr<Engine>> start(EngineConfig config, std::function<void(double fraction)> progress = {});
  static Result<std::unique_ptr<Engine>> start_with(EngineConfig config, EngineParts parts);
  ~Engine();

  int port() const;
  int kv_port() const;          // 0 if P/D is off
  bool alive() const;           // false: the step thread died, the process should end
  std::string summary() const;  // one line: model, backend, context, KV blocks
  // New requests are refused, those in flight and grants not yet fetched get up to config.drain_s; then everything ends.
  // Idempotent.
  void stop();

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::engine
