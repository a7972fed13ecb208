#pragma once
// `baton chat`: talk to a running stack (or any OpenAI server) from a terminal; every answer ends with what it cost and who did it.
#include <string>
#include <string_view>

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
// Value of name in "a=1,b=2", as our x-baton-* headers are written; "" if it is not there.
std::string field_of(std::string_view list, std::string_view name);

}  // namespace baton::stack
