// docs/endpoint-picker-config.md says what the table says. BATON_WRITE_DOCS=1 writes it.
#include "route/plugin_docs.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

namespace baton::route {
namespace {

TEST(PluginDocs, AreUpToDate) {
  const std::string path = BATON_SOURCE_DIR "/docs/endpoint-picker-config.md";
  if (std::getenv("BATON_WRITE_DOCS") != nullptr) std::ofstream(path) << plugin_docs();
  std::ifstream in(path);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  EXPECT_TRUE(text == plugin_docs()) << path << " is out of date: run with BATON_WRITE_DOCS=1";
}

}  // namespace
}  // namespace baton::route
