# baton_folder(): one target a folder, from the files that lie in it.
#   x.cc -> library baton_<folder>;  x_test.cc -> <folder>_test;  x_bench.cc -> <folder>_bench;  x_fuzz.cc -> <folder>_x_fuzz
# Arguments: DEPS folders this one may include (base is implied), LIBS external libraries,
#            ISA "file.cc|-mflag -mflag" extra flags of one file, THREADED if its test belongs in the TSan run,
#            ALONE files whose local names another file of the folder uses too: presets that compile several files as one (asan, tsan,
#            release) keep them apart. PCH header(s) most of its files include and nobody else does: it then has a precompiled header of its own.
#            WAITS n if its test mostly waits: ctest runs it in n parts at once, that count as one test together.
#            BUSY_TESTS if its tests compute much themselves (references, searches): the sanitizer presets optimise them too.
#            SERIAL tests of a THREADED folder in which only one thread runs: TSan has nothing to see there, and its preset leaves them out.
find_package(Threads REQUIRED)
if(BATON_TESTS OR BATON_FUZZERS)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
endif()

# ctest -j counts in quarters of a core (./test): a test takes four, a part of one that mostly waits takes one. COST: the longest first,
# and the fuzzers, which take two seconds each, at the end.
set(BATON_CORE 4)

add_library(baton_flags INTERFACE)
target_include_directories(baton_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(baton_flags INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wimplicit-fallthrough
  -Wnon-virtual-dtor -Wunused -Werror -fno-omit-frame-pointer)
target_link_libraries(baton_flags INTERFACE Threads::Threads)
if(BATON_SANITIZE)
  target_compile_options(baton_flags INTERFACE -fsanitize=${BATON_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(baton_flags INTERFACE -fsanitize=${BATON_SANITIZE})
  if(BATON_SANITIZE MATCHES undefined)  # a fifth of the compile time, and ASan stops at those accesses anyway
    target_compile_options(baton_flags INTERFACE -fno-sanitize=null,object-size)
  endif()
endif()
if(BATON_FUZZERS)  # libraries and fuzzers tell the fuzzer what they reach; nobody asks a unit test
  set(baton_reached -fsanitize=fuzzer-no-link)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # identical precompiled headers hash equal, so ccache can reuse what was built with them
  target_compile_options(baton_flags INTERFACE "SHELL:-Xclang -fno-pch-timestamp")
  add_link_options(-fuse-ld=lld)
endif()

find_program(BATON_CCACHE ccache)
if(BATON_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_DEPEND=1 ${BATON_CCACHE})
endif()

# What ./test builds of a preset, and no more: all unit tests, those that belong in the TSan run, all fuzzers.
add_custom_target(unit_tests)
add_custom_target(threaded_tests)
add_custom_target(fuzzers)

function(baton_folder)
  cmake_parse_arguments(A "BUSY_TESTS;THREADED" "WAITS" "ALONE;DEPS;LIBS;ISA;PCH;SERIAL;TEST_DEPS;TEST_LIBS" ${ARGN})
  get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  file(GLOB_RECURSE all CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${all})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  if(BATON_SANITIZE MATCHES thread)
    list(TRANSFORM A_SERIAL PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
    list(REMOVE_ITEM tests ${A_SERIAL})
  endif()
  set(benches ${all})
  list(FILTER benches INCLUDE REGEX "_bench\\.cc$")
  set(fuzzers ${all})
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cc$")
  set(sources ${all})
  list(FILTER sources EXCLUDE REGEX "_(test|bench|fuzz)\\.cc$")

  add_library(baton_${folder} STATIC ${sources})
  set_source_files_properties(${A_ALONE} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  target_link_libraries(baton_${folder} PUBLIC baton_flags)
  target_compile_options(baton_${folder} PRIVATE ${baton_reached})
  foreach(dep ${A_DEPS})
    target_link_libraries(baton_${folder} PUBLIC baton_${dep})
  endforeach()
  if(NOT folder STREQUAL "base")
    target_link_libraries(baton_${folder} PUBLIC baton_base)
  endif()
  target_link_libraries(baton_${folder} PUBLIC ${A_LIBS})
  foreach(entry ${A_ISA})
    string(REPLACE "|" ";" parts "${entry}")
    list(GET parts 0 file)
    list(GET parts 1 flags)
    set_source_files_properties(${file} PROPERTIES COMPILE_FLAGS "${flags}" SKIP_PRECOMPILE_HEADERS ON)
  endforeach()
  if(folder STREQUAL "base" OR A_PCH)  # base is the first folder; all flags are the same, so its precompiled header serves the others
    target_precompile_headers(baton_${folder} PRIVATE ${A_PCH} <algorithm> <array> <cstdint> <cstring> <expected> <functional> <map>
      <memory> <optional> <span> <string> <string_view> <unordered_map> <utility> <variant> <vector>)
  else()
    target_precompile_headers(baton_${folder} REUSE_FROM baton_base)
  endif()

  if(BATON_TESTS AND tests)
    find_package(GTest REQUIRED)
    add_executable(${folder}_test ${tests})
    set_target_properties(${folder}_test PROPERTIES UNITY_BUILD OFF)
    target_link_libraries(${folder}_test PRIVATE baton_${folder} GTest::gtest GTest::gmock GTest::gtest_main ${A_TEST_LIBS})
    foreach(dep ${A_TEST_DEPS})
      target_link_libraries(${folder}_test PRIVATE baton_${dep})
    endforeach()
    target_compile_definitions(${folder}_test PRIVATE BATON_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    if(BATON_SANITIZE AND NOT A_BUSY_TESTS)  # half the time to compile them; what they test is optimised as everywhere
      target_compile_options(${folder}_test PRIVATE -O0)
    endif()
    if(folder STREQUAL "base" OR (BATON_SANITIZE AND A_BUSY_TESTS))  # a precompiled header serves files of one optimisation
      target_precompile_headers(${folder}_test PRIVATE <gtest/gtest.h> <gmock/gmock.h> <map> <memory> <span> <string> <vector>)
    else()
      target_precompile_headers(${folder}_test REUSE_FROM base_test)
    endif()
    set(labels unit)
    add_dependencies(unit_tests ${folder}_test)
    if(A_THREADED)
      list(APPEND labels threaded)
      add_dependencies(threaded_tests ${folder}_test)
    endif()
    if(A_WAITS)
      foreach(part RANGE 1 ${A_WAITS})
        math(EXPR index "${part} - 1")
        add_test(NAME unit.${folder}.${part} COMMAND ${folder}_test --gtest_brief=1)
        set_tests_properties(unit.${folder}.${part} PROPERTIES LABELS "${labels}" TIMEOUT 600 PROCESSORS 1 COST 100
          ENVIRONMENT "GTEST_TOTAL_SHARDS=${A_WAITS};GTEST_SHARD_INDEX=${index}")
      endforeach()
    else()
      add_test(NAME unit.${folder} COMMAND ${folder}_test --gtest_brief=1)
      set_tests_properties(unit.${folder} PROPERTIES LABELS "${labels}" TIMEOUT 600 PROCESSORS ${BATON_CORE} COST 20)
    endif()
  endif()
  if(BATON_BENCHES AND benches)
    find_package(benchmark REQUIRED)
    add_executable(${folder}_bench ${benches})
    set_target_properties(${folder}_bench PROPERTIES UNITY_BUILD OFF)
    target_link_libraries(${folder}_bench PRIVATE baton_${folder} benchmark::benchmark benchmark::benchmark_main)
  endif()
  if(BATON_FUZZERS)
    foreach(file ${fuzzers})
      get_filename_component(stem ${file} NAME_WE)
      add_executable(${folder}_${stem} ${file})
      target_link_libraries(${folder}_${stem} PRIVATE baton_${folder})
      target_compile_options(${folder}_${stem} PRIVATE ${baton_reached})
      target_precompile_headers(${folder}_${stem} REUSE_FROM baton_base)
      target_link_options(${folder}_${stem} PRIVATE -fsanitize=fuzzer)
      add_dependencies(fuzzers ${folder}_${stem})
      # the same inputs in every run, so that a change is what fails it; `./test fuzz` looks for new ones
      add_test(NAME fuzz.${folder}_${stem} COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tests/tools/fuzz_inputs.py run
        $<TARGET_FILE:${folder}_${stem}> -rss_limit_mb=4096 -timeout=10 -print_final_stats=0 -verbosity=0)
      set_tests_properties(fuzz.${folder}_${stem} PROPERTIES LABELS fuzz TIMEOUT 120 PROCESSORS ${BATON_CORE})
    endforeach()
  endif()
endfunction()

# baton_app(name main COMPONENT c DEPS ...): program <name> from apps/<main>, installed by `cmake --install BUILD --component <c>`. What it
# needs at run time stands in docker/make-dockerfiles.
function(baton_app name main)
  cmake_parse_arguments(A "" "COMPONENT" "DEPS" ${ARGN})
  add_executable(${name} ${main})
  foreach(dep ${A_DEPS})
    target_link_libraries(${name} PRIVATE baton_${dep})
  endforeach()
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT ${A_COMPONENT})
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT ${A_COMPONENT})
endfunction()
