#pragma once
// `baton chat`: talk to a running stack (or any OpenAI server) from a terminal; every answer ends with what it cost and who did it.
#include <string>

#include "base/config.h"
#include "base/result.h"

namespace baton::stack {

struct ChatConfig {
  std::string url = "http://127.0.0.1:8000";
  std::string system;
  std::string once;          // one prompt, answered, then exit
  std::string model;         // "" = the server's first
  std::string api_key;
  int max_tokens = 256;
  double temperature = 0;
};
Options chat_options(ChatConfig& config);
Result<> chat(const ChatConfig& config);

struct Url {
  std::string host, path;
  int port = 80;
};
Result<Url> parse_url(const std::string& url);   // http only

}  // namespace baton::stack
