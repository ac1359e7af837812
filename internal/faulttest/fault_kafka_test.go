package faulttest_test

var kafkaFaults = []fault{}
