# Writes OUTPUT, the definitions of harness/results/build_record.hpp; run at every build with cmake -P.
# SPDX-License-Identifier: Apache-2.0
set(commit "unknown")
set(dirty "unknown")
find_program(GIT git)
if(GIT)
  execute_process(COMMAND ${GIT} rev-parse --show-toplevel WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE top
                  OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
  get_filename_component(source_path "${SOURCE_DIR}" REALPATH)
  # A copy unpacked inside somebody else's checkout has no commit of its own.
  if(NOT failed AND top STREQUAL source_path)
    execute_process(COMMAND ${GIT} rev-parse HEAD WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE head
                    OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
    if(NOT failed)
      set(commit "${head}")
      execute_process(COMMAND ${GIT} --no-optional-locks status --porcelain WORKING_DIRECTORY ${SOURCE_DIR}
                      OUTPUT_VARIABLE changes RESULT_VARIABLE failed ERROR_QUIET)
      if(NOT failed)
        set(dirty "no")
        if(changes)
          set(dirty "yes")
        endif()
      endif()
    endif()
  endif()
endif()

string(STRIP "${FLAGS}" FLAGS)
if(NOT SANITIZERS)
  set(SANITIZERS "none")
endif()
set(text "// Generated at every build.\n#include \"harness/results/build_record.hpp\"\n\nnamespace sp::build_record {\n\n")
foreach(pair "kVersion=${VERSION}" "kCommit=${commit}" "kDirty=${dirty}" "kCompiler=${COMPILER}" "kFlags=${FLAGS}"
             "kBuildType=${BUILD_TYPE}" "kSanitizers=${SANITIZERS}")
  string(REGEX MATCH "^([A-Za-z]+)=(.*)$" matched "${pair}")
  string(APPEND text "const char* const ${CMAKE_MATCH_1} = R\"~(${CMAKE_MATCH_2})~\";\n")
endforeach()
string(APPEND text "\n}  // namespace sp::build_record\n")

# Untouched when nothing changed, so that nothing is rebuilt.
set(old "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUTPUT} "${text}")
endif()
