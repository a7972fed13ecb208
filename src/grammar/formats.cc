#include "grammar/formats.h"

namespace baton::grammar {
namespace {

constexpr const char* kDate =
    "[1-9][0-9]{3}-((01|03|05|07|08|10|12)-(0[1-9]|[12][0-9]|3[01])|(04|06|09|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8])"
    ")";
constexpr const char* kTime = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
constexpr const char* kLabel = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
constexpr const char* kOctet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
constexpr const char* kPathChar = "([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
constexpr const char* kNumberOfTime = "(T([0-9]{1,4}H([0-9]{1,4}M)?([0-9]{1,4}S)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S))";

std::string host() { return std::string(kLabel) + "(\\." + kLabel + "){0,8}"; }
std::string ipv4() { return std::string(kOctet) + "(\\." + kOctet + "){3}"; }

std::string ipv6() {
  const std::string h = "[0-9A-Fa-f]{1,4}";
  std::string out = "(" + h + ":){7}" + h;
  // `::` stands for one group or more: n groups before it, at most 6 - n behind.
  for (int before = 0; before <= 6; ++before) {
    const std::string left = before == 0 ? "" : h + "(:" + h + "){" + std::to_string(before - 1) + "}";
    const std::string right = before == 6 ? "(" + h + ")?" : "(" + h + "(:" + h + "){0," + std::to_string(6 - before) + "})?";
    out += "|" + left + "::" + right;
  }
  return "(" + out + ")";
}

std::string tail_of_uri() {
  const std::string query = "(" + std::string(kPathChar) + "|[/?])*";
  return "(\\?" + query + ")?(#" + query + ")?";
}

}  // namespace

std::string format_regex(std::string_view f) {
  const std::string path = "(/" + std::string(kPathChar) + "*)*";
  if (f == "date") return kDate;
  if (f == "time") return kTime;
  if (f == "date-time") return std::string(kDate) + "T" + kTime;
  if (f == "duration") {
    const std::string time = kNumberOfTime;
    return "P([0-9]{1,4}W|([0-9]{1,4}Y([0-9]{1,4}M([0-9]{1,4}D)?)?|[0-9]{1,4}M([0-9]{1,4}D)?|[0-9]{1,4}D)" + time + "?|" + time +
           ")";
  }
  if (f == "uuid") return "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
  if (f == "ipv4") return ipv4();
  if (f == "ipv6") return ipv6();
  if (f == "hostname") return host();
  if (f == "email")
    return "[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,31}){0,1}@(" + std::string(kLabel) + "\\.){1,8}[A-Za-z]{2,63}";
  if (f == "uri")
    return "[A-Za-z][A-Za-z0-9+.-]*:(//" + host() + "(:[0-9]{1,5})?" + path + "|" + kPathChar + "+" + path + ")" + tail_of_uri();
  if (f == "uri-reference") return "(/" + std::string(kPathChar) + "+|[A-Za-z0-9._~-]+)" + path + tail_of_uri();
  if (f == "json-pointer") return "(/([^/~]|~[01])*)*";
  if (f == "relative-json-pointer") return "(0|[1-9][0-9]*)(#|(/([^/~]|~[01])*)*)";
  return "";
}

}  // namespace baton::grammar
