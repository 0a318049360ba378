# frozen_string_literal: true

require 'securerandom'
require 'rdkafka'

# A real Kafka, whose address the environment gives, seen by a client that is not ours.
module Kafka
  VARIABLE = 'BRIDGE_TEST_KAFKA'
  Record = Data.define(:payload, :key, :partition, :headers, :timestamp)

  # @return [String] host:port
  def self.brokers
    ENV.fetch(VARIABLE) do
      raise "these tests need a real Kafka: set #{VARIABLE} to its host:port (tests/gem in this repository starts one)"
    end
  end

  # @return [String] the name of a new topic
  def self.topic(partitions: 1, **config)
    name = "t#{SecureRandom.hex(6)}"
    admin = Rdkafka::Config.new('bootstrap.servers': brokers).admin
    config = config.to_h { |key, value| [key.to_s.tr('_', '.'), value.to_s] }
    admin.create_topic(name, partitions, 1, config).wait(max_wait_timeout_ms: 15_000)
    name
  ensure
    admin&.close
  end

  # @return [Array<Record>] what a read-committed reader sees in the topic
  def self.read(topic)
    consumer = Rdkafka::Config.new(
      'bootstrap.servers': brokers, 'group.id': SecureRandom.hex, 'auto.offset.reset': 'earliest',
      'isolation.level': 'read_committed', 'enable.partition.eof': true, 'fetch.wait.max.ms': 50, 'enable.auto.commit': false
    ).consumer
    partitions = partitions_of(consumer, topic)
    list = Rdkafka::Consumer::TopicPartitionList.new
    list.add_topic_and_partitions_with_offsets(topic, partitions.to_h { |number| [number, 0] })
    consumer.assign(list)
    records(consumer, partitions.size)
  ensure
    consumer&.close
  end

  def self.partitions_of(_consumer, topic)
    admin = Rdkafka::Config.new('bootstrap.servers': brokers).admin
    (0...admin.metadata(topic).topics.first[:partition_count]).to_a
  ensure
    admin&.close
  end

  def self.records(consumer, ends)
    found = []
    deadline = Time.now + 30
    while ends.positive?
      raise "the end of the topic is not reached, after #{found.size} messages" if Time.now > deadline

      begin
        message = consumer.poll(250) or next
        found << Record.new(message.payload, message.key, message.partition, message.headers, message.timestamp)
      rescue Rdkafka::RdkafkaError => e
        raise unless e.is_partition_eof?

        ends -= 1
      end
    end
    found
  end
  private_class_method :partitions_of, :records
end
