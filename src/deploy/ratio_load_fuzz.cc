// A model server's metrics, whatever they are: rates and samples stay finite and not negative.
#include <cmath>
#include <cstddef>

#include "deploy/ratio_load.h"

using namespace baton;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t middle = size / 2;
  deploy::LoadMeter meter(60'000);
  int64_t now_ms = 0;
  for (const std::string_view part : {text.substr(0, middle), text, text.substr(middle), text}) {
    std::vector<deploy::ServerNumbers> servers;
    if (auto one = deploy::read_server("p", part)) servers.push_back(*std::move(one));
    meter.look(now_ms += 1'000, std::move(servers));
    if (const auto load = meter.load()) {
      for (double x : {load->requests_s, load->prompt_tokens, load->answer_tokens_s, load->context})
        BATON_CHECK(std::isfinite(x) && x >= 0);
    }
  }
  return 0;
}
