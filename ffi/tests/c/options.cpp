/* The same as options.c by way of the C++ header. */
#include <cstdio>
#include <iostream>
#include <string>

#include <sandcell.hpp>

static void tell(const sandcell::Policy &policy)
{
    try {
        const std::string json = policy.options_json();
        std::cout << "= " << json << "\n";
    } catch (const sandcell::Error &error) {
        std::cout << "! " << error.subject() << "\t" << error.what() << "\t" << error.hint() << "\n";
    }
}

int main()
{
    std::string line;
    while (std::getline(std::cin, line)) {
        const std::size_t tab = line.find('\t');
        sandcell::Policy policy;
        tell(policy.set(line.substr(0, tab), line.substr(tab + 1)));
    }
    /* STATEMENTS */
    return 0;
}
